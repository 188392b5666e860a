"""The loss: Eq. 8 with L_reg of Eq. 7.

L = L_diffusion + prior_weight * L_prior + keep_earlier * ||M_reg (W_t - W_{t-1})||^2 + keep_base * ||M_con
(W_t - W_0)||^2
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class LossParts(NamedTuple):
    """Scalars of one step; `total` is what is differentiated."""

    total: Tensor
    diffusion: Tensor
    prior: Tensor
    regularisation: Tensor


def prediction_error(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared error per example `(B,)` of latents `(B, C, h, w)`; with a mask `(B, 1, h, w)` a weighted
    mean over it.
    """
    error = (prediction.float() - target.float()).square()
    if mask is None:
        return error.mean(dim=(1, 2, 3))
    weight = mask.expand_as(error)
    return (error * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)).clamp(min=1e-6)


def regularisation(
    values: Tensor, start: Tensor, shared: Tensor, keep_earlier: float, keep_base: float
) -> Tensor:
    """L_reg (Eq. 7), weighted, sums of squares.

    values `(n,)`: W_t - W_0 on M_con; shared `(m,)`: positions of M_reg in it; start `(m,)`: W_{t-1} - W_0
    there.
    """
    loss = values.new_zeros(())
    if keep_earlier and len(shared):
        loss = loss + keep_earlier * (values[shared] - start).square().sum()
    if keep_base:
        loss = loss + keep_base * values.square().sum()
    return loss


def combine(
    concept_error: Tensor,
    concept_weight: Tensor,
    prior_error: Tensor | None,
    prior_weight: float,
    regular: Tensor,
) -> LossParts:
    """Eq. 8 from per-example errors `(B,)` and their min-SNR weights `(B,)`; the prior shares the concept's
    noise levels.
    """
    diffusion = (concept_error * concept_weight).mean()
    prior = torch.zeros_like(diffusion) if prior_error is None else (prior_error * concept_weight).mean()
    return LossParts(diffusion + prior_weight * prior + regular, diffusion, prior, regular)
