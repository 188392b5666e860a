"""The float16 numbers of a change as a memory's file keeps them: their upper bytes deflated.

An upper byte holds the sign, the exponent and two bits of the fraction. What a training leaves lies around
zero within a few powers of two, so that few of the 256 come often: Huffman's code takes 5.4 bits for each,
where the numbers are normally distributed, and a number takes 13.4 bits. The lower byte, the rest of the
fraction, is as good as random and stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from .deflate import as_tensor, deflated, inflated

UPPER, LOWER = ".upper.deflated", ".lower"


def packed_halves(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In place of each float16 tensor where that is shorter: its lower bytes, uint8 of the same shape, as
    `<name>.lower`, and a zlib stream of its upper ones, uint8 `(bytes,)`, as `<name>.upper.deflated`.
    """
    kept: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dtype == torch.float16:
            numbers = tensor.contiguous().numpy().view(np.uint16)
            stream = deflated((numbers >> 8).astype(np.uint8))
            if len(stream) < tensor.numel():
                kept[name + LOWER] = torch.from_numpy((numbers & 0xFF).astype(np.uint8))
                kept[name + UPPER] = as_tensor(stream)
                continue
        kept[name] = tensor
    return kept


def unpacked_halves(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The counterpart of `packed_halves`. ValueError for a stream that is damaged or not as long as the lower
    bytes, or has none; nothing larger than those is allocated before it is found out.
    """
    found = dict(tensors)
    for stream_name in [name for name in tensors if name.endswith(UPPER)]:
        name = stream_name.removesuffix(UPPER)
        if name in found or name + LOWER not in found:
            raise ValueError(f"beside {stream_name} it has {_listed(found)}; expected {name}{LOWER} alone")
        lower = found.pop(name + LOWER)
        if lower.dtype != torch.uint8:
            raise ValueError(f"{name}{LOWER} is {lower.dtype}; expected uint8")
        upper = inflated(stream_name, found.pop(stream_name), lower.numel())
        numbers = upper.reshape(lower.shape).astype(np.uint16)
        numbers <<= 8
        numbers |= lower.numpy()
        found[name] = torch.from_numpy(numbers.view(np.float16))
    return found


def _listed(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(sorted(tensors))
