"""What a change keeps, as a memory's file holds it: masks and float16 numbers in fewer bytes, and exact."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .half_code import packed_halves, unpacked_halves
from .mask_code import packed_mask, unpacked_mask
from .projections import ProjectionLayout


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of `Change.tensors()`."""
    return packed_halves(packed_mask(tensors))


def unpacked(layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The counterpart, for a change in these weights. ValueError for what is damaged."""
    return unpacked_mask(layout, unpacked_halves(tensors))
