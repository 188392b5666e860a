"""Entries that are chosen when training has begun: what methods prepare that ask the pictures, or what
earlier concepts hold, which of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..method import Change
from ..projections import ProjectionLayout
from ..settings import number
from .shares import Shares


def budget(default: float, of_paper: str) -> float:
    """The setting of how many entries there may be."""
    field: float = number(
        default,
        0.01,
        50,
        f"Percent of all K/V entries to choose. {of_paper}",
        step=0.1,
    )
    return field


def entries_of(layout: ProjectionLayout, percent: float) -> int:
    """How many entries that percent is, at least one."""
    return max(1, round(layout.total * percent / 100))


@dataclass(frozen=True)
class ChosenLater(Shares):
    """So many entries, of all.

    count: how many at most; why: how they are chosen, as a few words.
    """

    layout: ProjectionLayout
    count: int
    why: str

    def moving(self) -> dict[str, float]:
        return dict.fromkeys(self.layout.names, self.count / self.layout.total)

    def overlap(self, change: Change) -> float:
        """Any entry may be chosen: the share of all that the concept has moved."""
        return sum(int(change.moved(name).sum()) for name in self.layout.names) / self.layout.total

    def report(self, parameters: int, earlier: Mapping[str, Change]) -> str:
        return (
            f"- up to {self.count:,} entries, {self.count / self.layout.total:.2%} of K/V and "
            f"{self.count / parameters:.3%} of the U-Net: {self.why}"
        )
