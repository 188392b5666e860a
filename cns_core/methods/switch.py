"""Adaptations that can be switched off for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from ..method import WeightFunction


class Switchable:
    """Base of adaptations: their weight functions give the frozen weights where `enabled` is false."""

    enabled = True

    def adding(self, change: Tensor) -> WeightFunction:
        """`f(W) -> W + change`, in the weight's dtype; differentiable in the change."""
        return lambda weight: (weight + change).to(weight.dtype) if self.enabled else weight

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """As before anything was learned, while it is open."""
        self.enabled = False
        try:
            yield
        finally:
            self.enabled = True
