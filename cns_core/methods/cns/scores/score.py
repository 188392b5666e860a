"""What a score is: how important each entry of a projection is for one caption."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from torch import Tensor

# A tensor on a GPU; on a CPU a NumPy array, since NumPy sorts there (see `selection.Ranking`) and starts no
# threads of its own. Operators work on both.
Array = Any


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a projection: `which` of them, and their `weight` `(rows, text_dim)`, float32."""

    projection: str
    which: slice
    weight: Tensor

    @cached_property
    def magnitude(self) -> Array:
        """`|W|`, `(rows, text_dim)`."""
        return as_array(self.weight.abs())


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of one caption, for scores to read what they need.

    features: of the tokens that count, `(tokens, text_dim)` float32.
    """

    features: Tensor

    @cached_property
    def feature_norms(self) -> Array:
        """`||X[:,j]||_2` of each input feature over the tokens, `(text_dim,)`."""
        return as_array(self.features.norm(dim=0))


class Score(Protocol):
    """A function of some rows and one caption."""

    def __call__(self, rows: Rows, evidence: Evidence) -> Array:
        """`(rows, text_dim)` float32; the larger, the more important."""
        ...


def as_array(tensor: Tensor) -> Array:
    """The tensor, or on a CPU its memory as a NumPy array."""
    return tensor if tensor.device.type != "cpu" else tensor.detach().numpy()
