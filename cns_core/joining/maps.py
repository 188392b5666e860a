"""What a change of a projection is multiplied by from the right: `D M`, in as few numbers as M allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

_LEFT_OUT = 1e-8  # of the largest eigenvalue: a ten-thousandth of a feature, which float16 rounds off


@dataclass(frozen=True, eq=False)
class Part:
    """A change of one projection, float32: left `(out, r)` @ right `(r, text_dim)`, or left
    `(out, text_dim)` alone.
    """

    left: Tensor
    right: Tensor | None = None

    def in_full(self) -> Tensor:
        """`(out, text_dim)`."""
        return self.left if self.right is None else self.left @ self.right


class Map(Protocol):
    """M `(text_dim, text_dim)`."""

    def of(self, part: Part) -> Part:
        """`D M`."""
        ...


class AsItIs:
    """M = 1."""

    def of(self, part: Part) -> Part:
        return part


@dataclass(frozen=True, eq=False)
class Columns:
    """M = diag(weights): a factor on each column. weights: float32 `(text_dim,)`."""

    weights: Tensor

    def of(self, part: Part) -> Part:
        if part.right is None:
            return Part(part.left * self.weights)
        return Part(part.left, part.right * self.weights)


@dataclass(frozen=True, eq=False)
class Through:
    """M = first @ second, float32 `(text_dim, r)` and `(r, text_dim)`. Of a change of any form r columns are
    left.
    """

    first: Tensor
    second: Tensor

    @classmethod
    def moment(cls, moment: Tensor, inverse: Tensor) -> Through:
        """M = C S^-1, by the directions that C has. moment: C; inverse: S^-1; float64 `(d, d)`."""
        sizes, directions = eigen(moment)
        return cls(directions.float(), (sizes[:, None] * (directions.T @ inverse)).float())

    def of(self, part: Part) -> Part:
        inner = self.first if part.right is None else part.right @ self.first
        return Part(part.left @ inner, self.second)


def eigen(moment: Tensor) -> tuple[Tensor, Tensor]:
    """Sizes `(r,)` and directions `(d, r)` of a second moment `(d, d)`, without those that are as good as
    nothing.
    """
    sizes, directions = torch.linalg.eigh(moment)
    kept = sizes > _LEFT_OUT * sizes[-1].clamp(min=0)
    return sizes[kept], directions[:, kept]
