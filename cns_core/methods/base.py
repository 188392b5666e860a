"""What adaptations have in common: most do nothing between steps."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..method import Probe, WeightFunction


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
