"""CIDM (2410.17594), as far as one model can draw all: low-rank changes, kept apart by what they write.

The orthogonal subspace regularizer R_1 (Sec. 4.1) asks that the columns of U span other directions than those
of earlier concepts. Printed as `A_i A_g^T = 0`, and released so, it can only be met by A_g = 0, A_i being of
full rank; meant is `A_i^T A_g = 0`, and that is taken here: the mean absolute inner product of columns.

Left out, and why:
- Elastic weight aggregation (Eq. 3) weighs each concept's change anew for every prompt. Here one model draws
  all of them: each change is added whole.
- Layer-wise concept tokens: one token speaks to all layers.
- Task-shared knowledge, R_2 = sum_i ||dW_i - H_i W_*||^2 with H_i and W_* free: it is 0 for any changes whose
  ranks together are no more than a projection's rows, W_* holding all their rows, so it asks nothing of them.
  The released code has none of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...method import Earlier
from ...settings import check, number, whole
from .adaptation import LowRankAdaptation, random_downs
from .change import LowRankChange
from .method import EveryProjection, LowRankMethod


@dataclass(frozen=True)
class CidmTraining:
    """How the factors are trained, and how hard they are kept apart."""

    rank: int = whole(4, 1, 256, "Rank of each concept's change: how much it can learn. Paper: 4.")
    weight_lr: float = number(1e-4, 0, 1, "Learning rate of the weights. Paper: 1e-4.", step=1e-5, digits=9)
    keep_earlier: float = number(
        0.1,
        0,
        1e6,
        "How hard what a concept writes is kept orthogonal to what earlier ones write. Paper: 0.1.",
        step=0.01,
        digits=9,
    )

    def __post_init__(self) -> None:
        check(self)


class CidmAdaptation(LowRankAdaptation):
    """Factors with R_1."""

    def __init__(self, earlier: Earlier, settings: CidmTraining, device: torch.device | str = "cpu") -> None:
        downs = random_downs(earlier.layout, settings.rank, seed=len(earlier.taught()))
        super().__init__(earlier, settings.weight_lr, downs, device)
        self._keep_earlier = settings.keep_earlier
        before = [change.ups for change in earlier.left().values() if isinstance(change, LowRankChange)]
        columns = torch.cat([torch.empty(len(self.ups), 0), *before], 1).float().to(device)
        self._before = dict(zip(self.layout.names, columns.split(self._rows), strict=True)) if before else {}

    def penalties(self) -> dict[str, Tensor]:
        """The mean over projections and pairs of columns of |<column, earlier column>|."""
        loss = self.ups.new_zeros(())
        for name, before in self._before.items():
            loss = loss + (before.T @ self._parts[name][0]).abs().mean()
        return {"orthogonality": self._keep_earlier * loss / len(self._rows)}


class Cidm(LowRankMethod):
    """CIDM."""

    name = "cidm"
    Training = CidmTraining

    def start(
        self, prepared: EveryProjection, earlier: Earlier, settings: CidmTraining, device: torch.device
    ) -> CidmAdaptation:
        return CidmAdaptation(earlier, settings, device)
