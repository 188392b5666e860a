"""Gradient fusion of Mix-of-Show (2305.18292, Eq. 4): one weight that answers each concept's captions as the
concept's own weight does.

    W = argmin_W sum_i ||(W_0 + D_i) X_i - W X_i||_F^2

The paper descends to it from W_0 by LBFGS (500 iterations in its text, 50 on keys and values in its code).
It is a least-squares problem of each projection, so we solve its normal equations in float64, with a ridge
towards W_0 for what no caption says; LBFGS approaches the same optimum:

    D = W - W_0 = (sum_i D_i C_i) (sum_i C_i + keep_general C_general + ridge tr(sum_i C_i)/d I)^-1

with C_i = X_i X_i^T. The paper protects nothing (keep_general 0, ridge 0), but goes from W_0 a few steps of
the way. Solved to its end, that ruins everything else; general prompts, the captions with their class words
among them, and a ridge prevent it and cost next to nothing (docs/methods.md, "Joined afterwards"). The paper
fuses the other attention weights and the text encoder as well, by features of pictures drawn; what moved
those is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..projections import ProjectionLayout
from ..settings import number
from .change import JoinedChange
from .maps import Through
from .rule import Evidence, Reading


@dataclass(frozen=True)
class FusionSettings(Reading):
    """What the fusion reads, and what it keeps."""

    keep_general: float = number(
        0.1,
        0,
        1000,
        "Gradient fusion: how much general prompts weigh, which are to stay as they are. Paper: 0, "
        "and some steps of the way.",
        step=0.1,
        digits=9,
    )
    ridge: float = number(
        1e-2,
        1e-9,
        1,
        "Gradient fusion: how much every direction stays as it is, a share of the captions' mean. The paper "
        "has none, but starts from the untouched weights.",
        step=1e-4,
        digits=9,
        rare=True,
    )


class Fused:
    """The same maps for every projection. evidence: float64 moments."""

    def __init__(self, evidence: Evidence, inverse: Tensor) -> None:
        self._maps = [Through.moment(moment, inverse) for moment in evidence.own]

    def maps(self, changes: Sequence[Tensor]) -> list[Through]:
        return self._maps


class GradientFusion:
    """Any number of memories."""

    name = "gradient fusion"
    Settings = FusionSettings
    reads_text = True
    most: int | None = None

    def start(self, evidence: Evidence, settings: FusionSettings) -> Fused:
        own = torch.stack(evidence.own).sum(dim=0)
        ridge = settings.ridge * own.trace() / len(own)
        total = own + settings.keep_general * evidence.general + ridge * torch.eye(len(own), dtype=own.dtype)
        return Fused(evidence, torch.cholesky_inverse(torch.linalg.cholesky(total)))

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> JoinedChange:
        return JoinedChange.read(self.name, layout, tensors)
