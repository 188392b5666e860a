"""The mask of a change as a memory's file keeps it: its bits, deflated.

Few of a mask's bits are set, so that some bytes come far more often than others. Huffman's code alone takes
0.355 bits an entry where 6.5 % are chosen, and where they are chosen at random none takes less than 0.347.
Looking for what repeats, as deflate does by default, finds only matches that cost more than the bytes they
stand for; but runs of equal bytes are worth it where a mask is nearly empty or nearly full.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .deflate import HUFFMAN, RUNS, as_tensor, deflated, inflated
from .projections import ProjectionLayout

MASK, DEFLATED = "mask", "mask.deflated"

# Below this share of the bits, Huffman's code is near the one bit that it takes for any byte.
_RUNS_BELOW = 0.2
# Bytes of bits that one byte of a file may stand for: deflate itself would allow a thousand.
_MOST = 64


def packed_mask(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a file keeps of `Change.tensors()`: `mask.deflated`, uint8 `(bytes,)`, a zlib stream, in place of
    `mask` where that is shorter.
    """
    kept = dict(tensors)
    if MASK not in kept:
        return kept
    bits = kept[MASK].numpy()
    stream = deflated(bits, HUFFMAN)
    if len(stream) < _RUNS_BELOW * len(bits):
        of_runs = deflated(bits, RUNS)
        if len(bits) / _MOST <= len(of_runs) < len(stream):
            stream = of_runs
    if len(stream) < len(bits):
        del kept[MASK]
        kept[DEFLATED] = as_tensor(stream)
    return kept


def unpacked_mask(layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The counterpart of `packed_mask`, for a change in these weights. ValueError for a stream that is
    damaged, or is not as long as the layout's bits; it is found out before more than those are allocated, and
    these are `_MOST` times the stream at most.
    """
    found = dict(tensors)
    if DEFLATED not in found:
        return found
    stream, size = found.pop(DEFLATED), (layout.total + 7) // 8
    if MASK in found:
        raise ValueError(f"it has both {MASK} and {DEFLATED}; expected one of them")
    if size > _MOST * stream.numel():
        raise ValueError(
            f"{DEFLATED} has {stream.numel():,} bytes; {layout.total:,} entries take at least "
            f"{size // _MOST:,}"
        )
    found[MASK] = torch.from_numpy(inflated(DEFLATED, stream, size))
    return found
