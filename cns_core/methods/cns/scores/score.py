"""What a score is: how important each entry of a projection is for one caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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

    @property
    def array(self) -> Array:
        """`W`, `(rows, text_dim)`."""
        return as_array(self.weight)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of one caption, for scores to read what they need.

    features: of the tokens that count, `(tokens, text_dim)` float32.
    feature_norms: `||X[:,j]||_2` of each input feature over the tokens, `(text_dim,)`.
    """

    features: Tensor
    feature_norms: Array = field(init=False)

    def __post_init__(self) -> None:
        # At once: where it is asked for, PyTorch would get in the way (see `selection.Ranking`).
        object.__setattr__(self, "feature_norms", as_array(self.features.norm(dim=0)))

    @property
    def array(self) -> Array:
        """X, `(tokens, text_dim)`."""
        return as_array(self.features)


@dataclass(frozen=True, eq=False)
class Contrast:
    """What is known of a concept as a whole: of its captions, and of the same without it."""

    concept: Sequence[Evidence]
    without: Sequence[Evidence]


class Score(Protocol):
    """A function of some rows and one caption, or a whole concept where the score contrasts it."""

    def __call__(self, rows: Rows, evidence: Any) -> Array:
        """`(rows, text_dim)` float32; the larger, the more important. Minus infinity is never chosen."""
        ...


def as_array(tensor: Tensor) -> Array:
    """The tensor, or on a CPU its memory as a NumPy array."""
    return tensor if tensor.device.type != "cpu" else tensor.detach().numpy()
