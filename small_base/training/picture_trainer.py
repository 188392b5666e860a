"""What the trainers share: a stream of pictures that each stretch begins anew, and a learner's state."""

from __future__ import annotations

from typing import Any

from ..world.pictures import PictureStream
from .learner import Learner
from .loop import stretch_seed


class PictureTrainer:
    """Base of the trainers; `pictures` and `learner` are theirs to use."""

    def __init__(self, name: str, seed: int, pictures: PictureStream, learner: Learner) -> None:
        self.name = name
        self.seed, self.pictures, self.learner = seed, pictures, learner

    def begin(self, index: int) -> None:
        """Draw other pictures than in earlier stretches."""
        self.pictures.seed(stretch_seed(self.seed, index))

    def state(self) -> dict[str, Any]:
        """Weights, the average of those that count, and the optimizer."""
        return self.learner.state()

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.learner.load(state)
