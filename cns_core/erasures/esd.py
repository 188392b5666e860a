"""Erased stable diffusion (ESD, 2303.07345): the model is guided away from the words, and learns what comes
of it.

    eps(x, c)  <-  eps0(x, c) - eta (eps0(x, c) - eps0(x, c*))

with eps0 the model as it was. The paper's c* is the empty prompt; ours is the same prompt with the words to
fall back on in their place, or without them, which for the words alone is the empty prompt. With eta = 1 the
words are drawn as what they fall back on, with more they are shunned. The paper's code has another form of
it, whose negative guidance of 1 is an eta of 2 here.

The paper denoises a picture part of the way by the model in training at every step; here pictures are drawn
once and noised, by which a step costs as much as one of learning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..objective import Goal
from ..priors import NoisedBatch, Teacher
from ..projections import ProjectionLayout
from ..settings import number, whole
from .adaptation import ErasingAdaptation, Guard
from .by_training import NOTHING, Looked, TrainingSettings
from .difference import Difference
from .scenes import Scene, of_words
from .wording import ToErase


@dataclass(frozen=True)
class EsdSettings(TrainingSettings):
    """And how far away."""

    steps: int = whole(200, 1, 100_000, "Optimizer steps. Paper: 200 to 1,000.")
    weight_lr: float = number(
        5e-5, 0, 1, "Learning rate of the weights. Paper: 1e-5; its later code: 5e-5.", step=1e-6, digits=9
    )
    negative_guidance: float = number(
        2.0,
        0,
        100,
        "eta: 1 leads the words to what they fall back on, more leads them past it. Paper: 2.",
        step=0.1,
    )


@dataclass(frozen=True)
class Away:
    """eps0(c) - eta (eps0(c) - eps0(c*))."""

    eta: float

    def target(self, batch: NoisedBatch, teacher: Teacher) -> Tensor:
        named, other = (
            teacher.untrained_prediction(batch.z_t, batch.t, teacher.frozen_text(prompts), batch.framings)
            for prompts in (batch.captions, batch.class_captions)
        )
        return named - self.eta * (named - other)


class Esd:
    """Negative guidance, learned."""

    name = "esd"
    Settings = EsdSettings
    looks_at = NOTHING

    def scenes(self, what: ToErase, settings: EsdSettings) -> list[Scene]:
        return of_words(what, settings.pictures)

    def goal(self, settings: EsdSettings) -> Goal:
        return Away(settings.negative_guidance)

    def start(
        self,
        layout: ProjectionLayout,
        weights: Mapping[str, Tensor],
        looked: Looked | None,
        guard: Guard | None,
        settings: EsdSettings,
        device: torch.device,
    ) -> ErasingAdaptation:
        return ErasingAdaptation(layout, settings.weight_lr, device, guard)

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Difference:
        """A change from what a file keeps of it; ValueError for other tensors."""
        return Difference.read(layout, tensors)
