"""What preparations have in common whose result is a share of each projection's entries."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..evaluation.plots import share_bars
from ..method import Change, Earlier


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
