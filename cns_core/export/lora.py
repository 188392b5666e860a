"""Learned changes as a LoRA file: for ComfyUI's own loader and those that read its names, and for diffusers.

Guarded directions are exactly a LoRA of as many ranks. Masks are differences of whole matrices: the first
form has a key for them; in the second they are a product too, of touched rows or columns and a one for each,
with zeros up to the rank that all products have in common.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..memory import ConceptMemory, Laid
from .block_names import diffusers_names


def stock_lora(memory: ConceptMemory) -> dict[str, Tensor]:
    """Tensors by the names `lora_unet_...` that ComfyUI and other programs read."""
    names, tensors = _names(memory), {}
    for name, laid in memory.laid().items():
        key = f"lora_unet_{names[name].replace('.', '_')}"
        if laid.dense is not None:  # a key has a difference or factors
            if bool((summed := laid.summed()).any()):
                tensors[f"{key}.diff"] = summed
        elif len(laid.down):
            tensors |= {
                f"{key}.lora_up.weight": laid.up.half(),
                # In full precision: what keeps protected prompts still is that long numbers cancel.
                f"{key}.lora_down.weight": laid.down.contiguous(),
                f"{key}.alpha": torch.tensor(float(len(laid.down))),
            }
    return tensors


def diffusers_lora(memory: ConceptMemory) -> dict[str, Tensor]:
    """Tensors by the names that diffusers' `load_lora_weights` reads, each a product.

    All are of one rank. Of several ranks, diffusers before 0.40 takes one for all when it scales.
    """
    names = _names(memory)
    factors = {name: _factors(laid) for name, laid in memory.laid().items()}
    rank = max((len(down) for _, down in factors.values()), default=0)
    tensors = {}
    for name, (up, down) in factors.items():
        if missing := rank - len(down):
            if missing == rank:
                continue
            up, down = pad(up, (0, missing)), pad(down, (0, 0, 0, missing))
        tensors[f"unet.{names[name]}.lora_A.weight"] = down.contiguous()
        tensors[f"unet.{names[name]}.lora_B.weight"] = up.contiguous()
    return tensors


def _names(memory: ConceptMemory) -> dict[str, str]:
    """In diffusers, of all that was moved. ValueError where a concept moved what has no name there."""
    try:
        return diffusers_names(memory.whole)
    except ValueError as error:
        raise ValueError(f"{error} Share the memory's own file instead.") from error


def _factors(laid: Laid) -> tuple[Tensor, Tensor]:
    """up `(out, r)` @ down `(r, text_dim)`, float32: all of a projection's change, exactly."""
    if laid.dense is None:
        return laid.up, laid.down
    dense = laid.dense.float()
    rows, columns = dense.any(1), dense.any(0)
    if int(rows.sum()) <= int(columns.sum()):
        up, down = torch.eye(len(rows))[:, rows], dense[rows]
    else:
        up, down = dense[:, columns], torch.eye(len(columns))[columns]
    return torch.cat([up, laid.up], 1), torch.cat([down, laid.down])
