"""What a concept that was made out of a space adds to the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..joining.change import JoinedChange
from ..projections import ProjectionLayout


class SpaceChange(JoinedChange):
    """A sum of low rank, kept as the shares of joined concepts are."""

    def refined(self, by: Any, ruled: Callable[[str], Tensor]) -> SpaceChange:
        raise ValueError("What was made out of a space of concepts is not learned further.")

    def summary(self) -> str:
        ranks = [self.added(name)[1].shape[0] for name in self.layout.names]
        return f"rank {max(ranks)}, out of a space of concepts"


class OutOfSpace:
    """Reads such concepts from files."""

    name = "concept space"

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> SpaceChange:
        """From what a file keeps of it. ValueError for other tensors."""
        change = SpaceChange.read(self.name, layout, tensors)
        assert isinstance(change, SpaceChange)
        return change
