"""What adaptations have in common: each can be switched off for a moment; most do nothing between steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from ..method import Probe, WeightFunction


class Switchable:
    """Base of adaptations: their weight functions give the frozen weights where `enabled` is false."""

    enabled = True

    def adding(self, change: Tensor) -> WeightFunction:
        """`f(W) -> W + change`, in the weight's dtype and shape; differentiable in the change."""

        def add(weight: Tensor) -> Tensor:
            return (weight + change.view_as(weight)).to(weight.dtype) if self.enabled else weight

        return add

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """As before anything was learned, while it is open."""
        self.enabled = False
        try:
            yield
        finally:
            self.enabled = True

    def before_step(self, step: int, steps: int, probe: Probe) -> None:
        pass

    def rate_factors(self, step: int, steps: int) -> Mapping[str, float]:
        return {}

    def before_forward(self) -> None:
        pass
