"""Ascending positions in a long vector, in two bytes each."""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 2**16


class PackedPositions:
    """Positions as offsets within blocks of 65,536, which fit int16; beside them a handful of numbers per
    block.

    A position as int32 would take as much as the learned value that it belongs to.
    """

    __slots__ = ("_counts", "_offsets", "_starts")

    def __init__(self, positions: Tensor, device: torch.device | str = "cpu") -> None:
        """positions: int64, ascending, `(n,)`."""
        blocks, counts = torch.unique_consecutive(positions // _BLOCK, return_counts=True)
        self._counts = counts.to(device)
        # int16 reaches from -32,768: starts are in the middle of their blocks.
        self._starts = (blocks * _BLOCK + _BLOCK // 2).to(device)
        self._offsets = (positions % _BLOCK - _BLOCK // 2).to(device=device, dtype=torch.int16)

    def __len__(self) -> int:
        return len(self._offsets)

    def unpacked(self) -> Tensor:
        """The positions, int64 `(n,)`; does not wait for a GPU."""
        starts = torch.repeat_interleave(self._starts, self._counts, output_size=len(self))
        return starts + self._offsets

    def nbytes(self) -> int:
        """Bytes held."""
        return sum(t.numel() * t.element_size() for t in (self._offsets, self._starts, self._counts))
