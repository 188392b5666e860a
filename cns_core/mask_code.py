"""The mask of a change as a memory's file keeps it: its bits, deflated.

Few of a mask's bits are set, so that some bytes come far more often than others. Huffman's code alone takes
0.355 bits an entry where 6.5 % are chosen, and where they are chosen at random none takes less than 0.347.
Looking for what repeats, as deflate does by default, finds only matches that cost more than the bytes they
stand for; but runs of equal bytes are worth it where a mask is nearly empty or nearly full.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from .projections import ProjectionLayout

MASK, DEFLATED = "mask", "mask.deflated"

# Below this share of the bits, Huffman's code is near the one bit that it takes for any byte.
_RUNS_BELOW = 0.2
# Bytes of bits that one byte of a file may stand for: deflate itself would allow a thousand.
_MOST = 64


def deflated(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a file keeps of `Change.tensors()`: `mask.deflated`, uint8 `(bytes,)`, a zlib stream, in place of
    `mask` where that is shorter.
    """
    kept = dict(tensors)
    if MASK not in kept:
        return kept
    bits = kept[MASK].numpy()
    stream = _stream(bits, zlib.Z_HUFFMAN_ONLY)
    if len(stream) < _RUNS_BELOW * len(bits):
        of_runs = _stream(bits, zlib.Z_RLE)
        if len(bits) / _MOST <= len(of_runs) < len(stream):
            stream = of_runs
    if len(stream) < len(bits):
        del kept[MASK]
        kept[DEFLATED] = torch.frombuffer(bytearray(stream), dtype=torch.uint8)
    return kept


def inflated(layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The counterpart of `deflated`, for a change in these weights. ValueError for a stream that is damaged,
    or is not as long as the layout's bits; it is found out before more than those are allocated, and these
    are `_MOST` times the stream at most.
    """
    found = dict(tensors)
    if DEFLATED not in found:
        return found
    stream, size = found.pop(DEFLATED), (layout.total + 7) // 8
    if MASK in found:
        raise ValueError(f"it has both {MASK} and {DEFLATED}; expected one of them")
    if stream.dtype != torch.uint8 or stream.ndim != 1:
        raise ValueError(f"{DEFLATED} is {stream.dtype} {list(stream.shape)}; expected uint8 [bytes]")
    if size > _MOST * len(stream):
        raise ValueError(
            f"{DEFLATED} has {len(stream):,} bytes; {layout.total:,} entries take at least {size // _MOST:,}"
        )
    reader = zlib.decompressobj()
    try:
        bits = reader.decompress(stream.numpy(), size + 1)
    except zlib.error as error:
        raise ValueError(f"{DEFLATED} is damaged ({error})") from error
    if len(bits) != size or not reader.eof or reader.unused_data:
        raise ValueError(
            f"{DEFLATED} is cut short, or holds another mask than one of {layout.total:,} entries"
        )
    found[MASK] = torch.frombuffer(bytearray(bits), dtype=torch.uint8)
    return found


def _stream(bits: np.ndarray, strategy: int) -> bytes:
    """As a zlib stream, with deflate's largest blocks: each has a table of codes."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS, memLevel=zlib.DEF_MEM_LEVEL + 1, strategy=strategy)
    return packer.compress(bits) + packer.flush()
