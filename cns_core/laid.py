"""What concepts have left in one weight, in parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Laid:
    """W_t - W_0 of one projection, in two parts to be summed.

    dense: float16 `(out, text_dim)`, or None for nothing; up @ down: float32 `(out, r)` and `(r, text_dim)`.
    Long numbers that cancel for protected prompts stay apart until they are summed in full precision.
    """

    dense: Tensor | None
    up: Tensor
    down: Tensor

    @classmethod
    def nothing(cls, out: int, text_dim: int) -> Laid:
        """No change of a projection of this shape."""
        return cls(None, torch.zeros(out, 0), torch.zeros(0, text_dim))

    def to(self, device: torch.device) -> Laid:
        """The same there."""
        dense = None if self.dense is None else self.dense.to(device)
        return Laid(dense, self.up.to(device), self.down.to(device))

    def is_nothing(self) -> bool:
        """Whether there is nothing to add."""
        return self.dense is None and not len(self.down)

    def in_full(self) -> Tensor:
        """Both parts, float32 `(out, text_dim)`."""
        product = self.up @ self.down
        return product if self.dense is None else product.add_(self.dense)

    def summed(self) -> Tensor:
        """Both parts, float16 `(out, text_dim)`."""
        if self.dense is None:
            return (self.up @ self.down).half()
        return torch.addmm(self.dense.float(), self.up, self.down).half() if len(self.down) else self.dense
