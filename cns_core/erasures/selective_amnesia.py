"""Selective amnesia (2305.10120): the words learn to name pictures of something else, while weights are held
by how much they matter to everything else.

    L = L_surrogate + L_replay + lambda sum F (W_t - W_{t-1})^2

L_surrogate is the loss of learning pictures of the words to fall back on under prompts that name the words,
L_replay keeps pictures of everything else, and F is the diagonal of the Fisher information: the mean squared
gradient on these. All pictures are drawn by the model itself, as in the paper. F is in units of its mean and
the sum relative to the size of the weights, so that lambda is a number of another size than the paper's 50.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..objective import Goal, OfPictures
from ..projections import ProjectionLayout
from ..settings import number, whole
from .adaptation import Elastic, ErasingAdaptation, Guard
from .by_training import KEPT, Looked, TrainingSettings
from .difference import Difference
from .scenes import Scene, of_fallback
from .wording import ToErase


@dataclass(frozen=True)
class AmnesiaSettings(TrainingSettings):
    """And how hard weights are held."""

    steps: int = whole(500, 1, 100_000, "Optimizer steps.")
    weight_lr: float = number(1e-5, 0, 1, "Learning rate of the weights. Paper: 1e-5.", step=1e-6, digits=9)
    elastic: float = number(
        10.0,
        0,
        1e9,
        "lambda: how hard weights are held that matter to what is kept, in shares of their size. The "
        "paper's 50 is in units of its own.",
        step=1.0,
        digits=9,
    )
    look_steps: int = whole(64, 1, 10_000, "Batches over which it is found what matters.", rare=True)


class SelectiveAmnesia:
    """Elastic weights, surrogate pictures and replay."""

    name = "selective amnesia"
    Settings = AmnesiaSettings
    looks_at = KEPT

    def scenes(self, what: ToErase, settings: AmnesiaSettings) -> list[Scene]:
        return of_fallback(what, settings.pictures)

    def goal(self, settings: AmnesiaSettings) -> Goal:
        return OfPictures()

    def start(
        self,
        layout: ProjectionLayout,
        weights: Mapping[str, Tensor],
        looked: Looked | None,
        guard: Guard | None,
        settings: AmnesiaSettings,
        device: torch.device,
    ) -> ErasingAdaptation:
        assert looked is not None
        size = sum(float(weight.double().square().sum()) for weight in weights.values())
        elastic = Elastic.of_squares(settings.elastic, looked.squares, size)
        return ErasingAdaptation(layout, settings.weight_lr, device, guard, elastic=elastic)

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Difference:
        """A change from what a file keeps of it; ValueError for other tensors."""
        return Difference.read(layout, tensors)
