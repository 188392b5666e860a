"""What a score is: how important each entry of a projection is for one caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a projection: `which` of them, and their `weight` `(rows, text_dim)`, float32."""

    projection: str
    which: slice
    weight: Tensor


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of one caption, for scores to read what they need.

    features: of the tokens that count, `(tokens, text_dim)` float32.
    """

    features: Tensor


class Score(Protocol):
    """A function of some rows and one caption."""

    def __call__(self, rows: Rows, evidence: Evidence) -> Tensor:
        """`(rows, text_dim)` float32; the larger, the more important."""
        ...
