"""The loss, Eq. 8: `L = L_diffusion + prior_weight * L_prior + penalties` (CNS's is L_reg of Eq. 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from .priors import NoisedBatch, Prior, Teacher


class Goal(Protocol):
    """What is to be predicted for the noised pictures of a batch."""

    def target(self, batch: NoisedBatch, teacher: Teacher) -> Tensor:
        """`(B, C, h, w)`, in the model's own prediction type."""
        ...


class OfPictures:
    """Their own noise, or v: what makes a model draw them."""

    def target(self, batch: NoisedBatch, teacher: Teacher) -> Tensor:
        return teacher.levels.target(batch.z0, batch.noise, batch.t)


@dataclass(frozen=True)
class Objective:
    """What is asked of the pictures, and of what is kept."""

    goal: Goal
    prior: Prior


def prediction_error(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared error of each example `(B,)` of latents `(B, C, h, w)`; with a mask `(B, 1, h, w)` a
    weighted mean over it.
    """
    error = (prediction.float() - target.float()).square()
    if mask is None:
        return error.mean(dim=(1, 2, 3))
    weight = mask.expand_as(error)
    return (error * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)).clamp(min=1e-6)


def total_loss(
    concept: Tensor, prior: Tensor | None, prior_weight: float, penalties: Mapping[str, Tensor]
) -> Tensor:
    """Eq. 8 of scalars, in a fixed order."""
    total = concept if prior is None else concept + prior_weight * prior
    return sum(penalties.values(), start=total)
