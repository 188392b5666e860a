"""What adaptations have in common: most do nothing between steps, and all go on from what is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..laid import Laid
from ..method import Earlier, Probe, WeightFunction


class AdaptationBase:
    """What an adaptation that has nothing to do does at each turn of the loop."""

    def before_step(self, step: int, steps: int, probe: Probe) -> None:
        pass

    def rate_factors(self, step: int, steps: int) -> Mapping[str, float]:
        return {}

    def before_forward(self) -> None:
        pass


def adding(change: Tensor) -> WeightFunction:
    """`f(W) -> W + change`, in the weight's dtype and shape; differentiable in the change."""
    return lambda weight: (weight + change.view_as(weight)).to(weight.dtype)


def left_before(earlier: Earlier, device: torch.device | str) -> dict[str, Laid]:
    """What earlier concepts left in each projection, where they left anything, on the device of training.

    Products stay products: a sum takes memory of its own and, at every call, a new weight that autograd
    keeps. Of a rank of more than half the width they are summed, for then they would take as much. A factor
    that projections share, as directions are, stays shared.
    """
    found: dict[str, Laid] = {}
    last = there = torch.empty(0)
    for name, laid in earlier.laid().items():
        rank, width = laid.down.shape
        if rank > width // 2:
            laid = Laid(laid.summed(), laid.up[:, :0], laid.down[:0])
        if laid.is_nothing():
            continue
        if laid.down is not last:
            last, there = laid.down, laid.down.to(device)
        dense = None if laid.dense is None else laid.dense.to(device)
        found[name] = Laid(dense, laid.up.to(device), there)
    return found


class OnEarlier:
    """`f(W) -> W + earlier + own`, the sum itself taken in float32 (`method.Factored`).

    before: what earlier concepts left; own: factors of what is learned on top, None while there is nothing.
    """

    def __init__(
        self, before: Laid | None, own: Callable[[], tuple[Tensor, Tensor] | None] = lambda: None
    ) -> None:
        self._own = own
        self._earlier: list[tuple[Tensor, Tensor]] = []
        self.rest: WeightFunction | None = None
        if before is not None:
            self._earlier = [(before.up, before.down)] if len(before.down) else []
            self.rest = None if before.dense is None else adding(before.dense)

    def __call__(self, weight: Tensor) -> Tensor:
        summed = weight.float() if self.rest is None else self.rest(weight.float())
        for up, down in self.products():
            summed = torch.addmm(summed, up, down)
        return summed.to(weight.dtype)

    def products(self) -> list[tuple[Tensor, Tensor]]:
        own = self._own()
        return self._earlier if own is None else [*self._earlier, own]
