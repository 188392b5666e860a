"""Weights as whole numbers with one factor a row; what comes back is the same bits on every machine."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LEAST_BITS, MOST_BITS = 4, 8


def quantise_rows(weights: Tensor, bits: int = MOST_BITS) -> tuple[Tensor, Tensor]:
    """Round weights (n, ...) to at most `bits` bits each, symmetrically around zero.

    Returns:
        Numbers, int8, in the shape of `weights`, and factors, fp16 (n,): a weight is its number times its
        row's factor, at most half a factor (and fp16's rounding) off.
    """
    if not LEAST_BITS <= bits <= MOST_BITS:
        raise ValueError(f"{bits} bits a weight; give {LEAST_BITS} to {MOST_BITS}")
    rows = weights.detach().float().cpu().flatten(1).numpy()
    # What is not finite, or too large for fp16, is not finite when it comes back: no need to warn of it here.
    with np.errstate(invalid="ignore", over="ignore"):
        wanted = np.abs(rows).max(axis=1) / np.float32(2 ** (bits - 1) - 1)
        factors = wanted.astype(np.float16)
        # Rounded up: with a smaller factor the row's largest weight might need one number too many.
        factors = np.where(factors < wanted, np.nextafter(factors, np.float16(np.inf)), factors)
        steps = np.where(factors > 0, factors, np.float16(1)).astype(np.float32)
        numbers = np.rint(rows / steps[:, None]).astype(np.int8)
    return torch.from_numpy(numbers).view(weights.shape), torch.from_numpy(factors)


def dequantise_rows(numbers: Tensor, factors: Tensor) -> Tensor:
    """Numbers (n, ...) and factors (n,) as fp16 weights.

    A product of 7 by 11 bits is exact in float32, so that the only rounding is the one to fp16.
    """
    if numbers.dtype != torch.int8 or factors.dtype != torch.float16 or factors.shape != numbers.shape[:1]:
        raise ValueError(
            f"numbers are {numbers.dtype} {tuple(numbers.shape)}, their factors {factors.dtype} "
            f"{tuple(factors.shape)}; expected int8 (n, ...) and float16 (n,)"
        )
    return (numbers.float().flatten(1) * factors.float()[:, None]).half().view(numbers.shape)
