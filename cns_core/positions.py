"""Ascending positions in a long vector, in one byte each."""

from __future__ import annotations

import torch
from torch import Tensor

_WRAP = 256


class PackedPositions:
    """The gaps between positions, modulo 256, beside a list of the few gaps that are wider.

    Positions as int32 would take as much as the learned values that they belong to. Of entries that are 6.5 %
    of a vector at most every sixteenth gap can be wider than 255, and takes 8 bytes more.
    """

    __slots__ = ("_beyond", "_gaps", "_wide")

    def __init__(self, positions: Tensor, device: torch.device | str = "cpu") -> None:
        """positions: int64, ascending, below 2^31, `(n,)`."""
        gaps = positions.diff(prepend=positions.new_zeros(1))
        wide = (gaps >= _WRAP).nonzero().reshape(-1)
        self._gaps = (gaps % _WRAP).to(device=device, dtype=torch.uint8)
        self._wide = wide.to(device=device, dtype=torch.int32)
        self._beyond = (gaps[wide] - gaps[wide] % _WRAP).to(device=device, dtype=torch.int32)

    def __len__(self) -> int:
        return len(self._gaps)

    def unpacked(self) -> Tensor:
        """The positions, int64 `(n,)`; does not wait for a GPU."""
        gaps = self._gaps.to(torch.int32).index_add_(0, self._wide, self._beyond)
        return gaps.cumsum(0)

    def nbytes(self) -> int:
        """Bytes held."""
        return sum(t.numel() * t.element_size() for t in (self._gaps, self._wide, self._beyond))
