"""SalUn (2310.12508): only the weights that the words ask for most may move, and pictures of the words learn
to be something else.

    m = |sum dL_words/dW| among the largest,     eps(x, c) <- eps0(x, c'),     and what is kept stays

L_words is the loss of the words' own pictures, before anything moves. c' is the prompt with the words to fall
back on in their place, or with any other thing (the paper's random labels). The paper keeps half of all
weights, and pictures of a data set stay; ours are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..methods.choosing import largest
from ..objective import Goal
from ..priors import NoisedBatch, Teacher
from ..projections import ProjectionLayout
from ..settings import choice, number, whole
from .adaptation import ErasingAdaptation, Guard
from .by_training import WORDS, Looked, TrainingSettings
from .difference import MaskedDifference
from .scenes import Scene, of_words, of_words_as_any
from .wording import ToErase

FALLBACK, RANDOM = "the words to fall back on", "random things"


@dataclass(frozen=True)
class SalUnSettings(TrainingSettings):
    """And which entries, and what they learn."""

    steps: int = whole(500, 1, 100_000, "Optimizer steps.")
    weight_lr: float = number(1e-5, 0, 1, "Learning rate of the weights. Paper: 1e-5.", step=1e-6, digits=9)
    salient_percent: float = number(
        50.0, 0.01, 100, "Percent of the entries that may move. Paper: 50.", step=1.0
    )
    labels: str = choice(
        FALLBACK,
        (FALLBACK, RANDOM),
        "What pictures of the words learn to be. random things: another one in every prompt.",
    )
    look_steps: int = whole(
        32, 1, 10_000, "Batches over which gradients are summed to find the entries.", rare=True
    )


class AsOther:
    """eps0(x, c')."""

    def target(self, batch: NoisedBatch, teacher: Teacher) -> Tensor:
        other = teacher.frozen_text(batch.class_captions)
        return teacher.untrained_prediction(batch.z_t, batch.t, other, batch.framings)


class SalUn:
    """Saliency unlearning."""

    name = "salun"
    Settings = SalUnSettings
    looks_at = WORDS

    def scenes(self, what: ToErase, settings: SalUnSettings) -> list[Scene]:
        if settings.labels == RANDOM:
            return of_words_as_any(what, settings.pictures, settings.seed)
        return of_words(what, settings.pictures)

    def goal(self, settings: SalUnSettings) -> Goal:
        return AsOther()

    def start(
        self,
        layout: ProjectionLayout,
        weights: Mapping[str, Tensor],
        looked: Looked | None,
        guard: Guard | None,
        settings: SalUnSettings,
        device: torch.device,
    ) -> ErasingAdaptation:
        assert looked is not None
        count = max(1, round(layout.total * settings.salient_percent / 100))
        mask = largest(layout, {name: total.abs() for name, total in looked.sums.items()}, count)
        return ErasingAdaptation(layout, settings.weight_lr, device, guard, masks=mask)

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> MaskedDifference:
        """A change from what a file keeps of it; ValueError for other tensors."""
        return MaskedDifference.read(layout, tensors)
