"""Streams of zlib in a memory's file: as small as they can be, and refused before they grow when damaged."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

HUFFMAN, RUNS = zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE


def deflated(content: np.ndarray, strategy: int = HUFFMAN) -> bytes:
    """As a zlib stream, with deflate's largest blocks: each has a table of codes."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS, memLevel=zlib.DEF_MEM_LEVEL + 1, strategy=strategy)
    return packer.compress(np.ascontiguousarray(content)) + packer.flush()


def as_tensor(content: bytes) -> Tensor:
    """uint8 `(bytes,)`, of its own."""
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def inflated(name: str, stream: Tensor, size: int) -> np.ndarray:
    """The uint8 `(size,)` that a stream stands for; never more than that is allocated.

    Raises:
        ValueError: it is no uint8 `(bytes,)`, damaged, cut short, or of another size.
    """
    if stream.dtype != torch.uint8 or stream.ndim != 1:
        raise ValueError(f"{name} is {stream.dtype} {list(stream.shape)}; expected uint8 [bytes]")
    reader = zlib.decompressobj()
    try:
        content = reader.decompress(stream.numpy(), size + 1)
    except zlib.error as error:
        raise ValueError(f"{name} is damaged ({error})") from error
    if len(content) != size or not reader.eof or reader.unused_data:
        raise ValueError(f"{name} is cut short, or holds something else than {size:,} bytes")
    return np.frombuffer(bytearray(content), dtype=np.uint8)
