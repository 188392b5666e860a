"""Curves of any length as a few points, so that a message stays small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_DIGITS = 4


@dataclass(frozen=True)
class Curves:
    """Several curves over the same steps.

    points: by name, each the mean of `every` steps, the last one of those that are left over; steps: how many
    there were.
    """

    points: Mapping[str, tuple[float, ...]]
    every: int
    steps: int

    def as_json(self) -> dict[str, Any]:
        """Numbers to four digits."""
        rounded = {name: [float(f"{v:.{_DIGITS}g}") for v in values] for name, values in self.points.items()}
        return {"points": rounded, "every": self.every, "steps": self.steps}


def thinned(curves: Mapping[str, Sequence[float]], most: int) -> Curves:
    """At most so many points of each curve. ValueError for curves of several lengths, or no room for any."""
    lengths = {len(values) for values in curves.values()}
    if len(lengths) > 1 or most < 1:
        raise ValueError(
            f"Curves of {sorted(lengths)} values cannot be thinned to {most} points together; expected one "
            "length, and at least one point."
        )
    steps = max(lengths, default=0)
    every = max(1, -(-steps // most))
    points = {
        name: tuple(_mean(values[start : start + every]) for start in range(0, steps, every))
        for name, values in curves.items()
    }
    return Curves(points, every, steps)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
