"""What preparations have in common whose result is a share of each projection's entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..evaluation.plots import share_bars
from ..method import Change, Earlier
from ..projections import ProjectionLayout


class Shares:
    """Base of such preparations: they ask nothing of earlier concepts, and tell nothing afterwards."""

    def moving(self) -> Mapping[str, float]:
        """The share of each projection's entries that may move, 0 to 1."""
        raise NotImplementedError

    def overlap(self, change: Change) -> float:
        """How much of what may move an earlier concept has moved: intersection over union, 0 to 1."""
        raise NotImplementedError

    def check(self, earlier: Earlier) -> None:
        pass

    def picture(self, earlier: Mapping[str, Change]) -> Tensor:
        overlaps = [(token, self.overlap(change)) for token, change in earlier.items()]
        return share_bars(list(self.moving().items()), overlaps)

    def outcome(self, change: Change) -> str:
        return ""


@dataclass(frozen=True)
class AllOf(Shares):
    """Base of preparations where every entry of some weights may move."""

    layout: ProjectionLayout

    def moving(self) -> dict[str, float]:
        return dict.fromkeys(self.layout.names, 1.0)

    def overlap(self, change: Change) -> float:
        moved = sum(int(change.moved(name).sum()) for name in self.layout.names)
        return moved / self.layout.total
