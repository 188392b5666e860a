"""An endless stream of captioned pictures of a world."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..training.tokenizer import Tokenizer
from .compose import Composer
from .placing import FULL_VARIETY, PAIRS, SceneSampler, Variety
from .transforms import TRANSFORMS
from .wording import FULL_WORDING, Scene, Shares, caption
from .world import World


@dataclass(frozen=True)
class Batch:
    """Pictures and what is said of them."""

    images: Tensor  # (B, 3, size, size) in [0, 1], on the device
    captions: list[str]
    scenes: list[Scene]


class PictureStream:
    """Draws batches without end; the same seed gives the same scenes and captions on every machine."""

    def __init__(
        self,
        world: World,
        size: int,
        device: torch.device,
        seed: int,
        *,
        pairs: float = PAIRS,
        transformed: float = 0.0,
        variety: Variety = FULL_VARIETY,
        half_in: Variety | None = None,
        shares: Shares = FULL_WORDING,
    ) -> None:
        """
        Args:
            pairs: the share of pictures that show two things.
            transformed: the share that is shown, and captioned, as one of the transforms.
            variety: of the things' poses.
            half_in: of those in every other picture, where they are to differ.
            shares: how often captions say what.
        """
        self.world, self._transformed, self._shares = world, transformed, shares
        varieties = [variety, variety if half_in is None else half_in]
        self._samplers = [SceneSampler(world, size, seed, pairs=pairs, variety=one) for one in varieties]
        self._composer = Composer(world, size, device, torch.float32)
        self.rng = random.Random(seed)

    def seed(self, seed: int) -> None:
        """Go on as a stream of this seed would begin."""
        self.rng.seed(seed)

    def batch(self, count: int) -> Batch:
        """The next `count` pictures."""
        scenes = [self._samplers[row % 2].sample(1, self.rng)[0] for row in range(count)]
        captions = [caption(scene, self.world, self.rng, shares=self._shares) for scene in scenes]
        images = self._composer.render(scenes)
        for row in range(count if self._transformed else 0):
            if self.rng.random() < self._transformed:
                name = self.rng.choice(sorted(TRANSFORMS))
                images[row] = TRANSFORMS[name](images[row : row + 1])[0]
                captions[row] = as_transformed(captions[row], name)
        return Batch(images, captions, scenes)


def as_transformed(text: str, transform: str) -> str:
    """The caption of a transformed picture."""
    return f"{text}, {transform} style".removeprefix(", ")


def used_token_ids(world: World, tokenizer: Tokenizer, captions: int = 20_000) -> list[int]:
    """The ids that captions of this world use: all names, and what a good many captions say besides."""
    rng = random.Random(0)
    scenes = SceneSampler(world, 64, 0).sample(captions, rng)
    return tokenizer.used_in([*_names(world), *(caption(scene, world, rng) for scene in scenes)])


def _names(world: World) -> Iterator[str]:
    for thing in world.objects:
        yield thing.name
        yield thing.category
    yield from world.styles
    yield from world.scenes
