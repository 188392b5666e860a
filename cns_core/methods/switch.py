"""Adaptations that can be switched off for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Switchable:
    """Base of adaptations: their weight functions give the frozen weights where `enabled` is false."""

    enabled = True

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """As before anything was learned, while it is open."""
        self.enabled = False
        try:
            yield
        finally:
            self.enabled = True
