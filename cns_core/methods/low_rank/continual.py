"""Low-rank continual personalisation (2410.04891): four ways to learn by one adapter after another.

    naive:         one adapter is trained on from concept to concept (`one_adapter.py`)
    merged:        each adapter is added to the weights, and the next one starts anew
    orthogonal:    the same, and the next one's D starts orthogonal to that of the one before
    by magnitude:  every entry is the largest change that any adapter has made of it (`largest.py`)

The released code of the third way adds up the factors of adapters. The product of such sums is not the sum of
products, which is what the paper means and what is added here. It also turns each column of D by itself; but
which directions D reads is said by its rows, and here each of them is orthogonal to all of the last one's.

The paper trains all attention of SDXL; these are about keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...method import Change, Earlier
from ...projections import ProjectionLayout
from ...settings import check, number, whole
from .adaptation import LowRankAdaptation, random_downs
from .change import LowRankChange
from .largest import LargestAdaptation, LargestChange
from .method import EveryProjection, LowRankMethod
from .one_adapter import OneAdapterAdaptation, OneAdapterChange


@dataclass(frozen=True)
class ContinualTraining:
    """How each adapter is trained."""

    rank: int = whole(64, 1, 256, "Rank of each adapter: how much it can learn. Paper: 64, on SDXL.")
    weight_lr: float = number(
        1e-5, 0, 1, "Learning rate of the weights. Paper: 1e-5, on SDXL.", step=1e-6, digits=9
    )

    def __post_init__(self) -> None:
        check(self)


class Naive(LowRankMethod):
    """One adapter is trained on."""

    name = "low-rank naive"
    Training = ContinualTraining

    def start(
        self, prepared: EveryProjection, earlier: Earlier, settings: ContinualTraining, device: torch.device
    ) -> OneAdapterAdaptation:
        return OneAdapterAdaptation(earlier, settings.rank, settings.weight_lr, device)

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Change:
        return OneAdapterChange.read(layout, tensors)


class Merged(LowRankMethod):
    """Merge and re-initialise."""

    name = "low-rank merged"
    Training = ContinualTraining

    def start(
        self, prepared: EveryProjection, earlier: Earlier, settings: ContinualTraining, device: torch.device
    ) -> LowRankAdaptation:
        downs = random_downs(earlier.layout, settings.rank, seed=len(earlier.taught()))
        return LowRankAdaptation(earlier, settings.weight_lr, downs, device)


class MergedOrthogonal(LowRankMethod):
    """Merge and orthogonal initialisation."""

    name = "low-rank orthogonal"
    Training = ContinualTraining

    def start(
        self, prepared: EveryProjection, earlier: Earlier, settings: ContinualTraining, device: torch.device
    ) -> LowRankAdaptation:
        downs = random_downs(earlier.layout, settings.rank, seed=len(earlier.taught()))
        before = [change for change in earlier.left().values() if isinstance(change, LowRankChange)]
        if before:
            downs = turned_away(downs, before[-1])
        return LowRankAdaptation(earlier, settings.weight_lr, downs, device)


class ByMagnitude(LowRankMethod):
    """Magnitude-based merging."""

    name = "low-rank by magnitude"
    Training = ContinualTraining

    def start(
        self, prepared: EveryProjection, earlier: Earlier, settings: ContinualTraining, device: torch.device
    ) -> LargestAdaptation:
        return LargestAdaptation(earlier, settings.rank, settings.weight_lr, device)

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Change:
        return LargestChange.read(layout, tensors)


def turned_away(downs: Tensor, before: LowRankChange) -> Tensor:
    """Random D `(projections, r, text_dim)` without what lies along any row of an earlier concept's; rows of
    length 1, orthogonal to each other too. ValueError when text features have too few directions for both.
    """
    rank, text_dim = downs.shape[1:]
    if before.rank + rank > text_dim:
        raise ValueError(
            f"rank is {rank}, and the concept before it has taken {before.rank} of the {text_dim} directions "
            f"that text features have: {text_dim - before.rank} are orthogonal to them. Lower rank."
        )
    turned = []
    for name, down in zip(before.layout.names, downs, strict=True):
        both = torch.cat([before.added(name)[1], down]).double()
        turned.append(torch.linalg.qr(both.T)[0].T[before.rank :].float())
    return torch.stack(turned)
