"""Learned changes as a LoRA file: for ComfyUI's own loader and those that read its names, and for diffusers.

Guarded directions are exactly a LoRA of as many ranks. Masks are differences of whole matrices: the first
form has a key for them; in the second they are a product too, of touched rows or columns and a one for each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..memory import ConceptMemory, Laid
from .block_names import diffusers_names


def stock_lora(memory: ConceptMemory) -> dict[str, Tensor]:
    """Tensors by the names `lora_unet_...` that ComfyUI and other programs read."""
    names, tensors = diffusers_names(memory.layout), {}
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
    """Tensors by the names that diffusers' `load_lora_weights` reads, each a product."""
    names, tensors = diffusers_names(memory.layout), {}
    for name, laid in memory.laid().items():
        up, down = _factors(laid)
        if len(down):
            key = f"unet.{names[name]}"
            tensors[f"{key}.lora_A.weight"] = down.contiguous()
            tensors[f"{key}.lora_B.weight"] = up.contiguous()
    return tensors


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
