"""Learned changes as a LoRA file: for ComfyUI's own loader and those that read its names, and for diffusers.

Guarded directions are exactly a LoRA of as many ranks. Masks are differences of whole matrices: the first
form has a key for them; in the second they are a product too, of touched rows or columns and a one for each,
with zeros up to the rank that all products have in common.

Weights beyond the transformer blocks go by their original names, which ComfyUI reads and other programs do
not; what one concept has left in a convolution is a product there as well, since a product alone is read into
whatever shape the weight has.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..laid import Laid
from ..memory import ConceptMemory
from ..projections import ProjectionLayout
from .block_names import diffusers_names, in_transformer


def stock_lora(memory: ConceptMemory) -> dict[str, Tensor]:
    """Tensors by the names `lora_unet_...` that ComfyUI and, of attention's, other programs read."""
    names = _stock_names(memory.whole)
    tensors: dict[str, Tensor] = {}
    for name, laid in memory.laid().items():
        known = names.get(name.removesuffix(".bias"))
        key = f"lora_unet_{(known or name.removesuffix('.bias')).replace('.', '_')}"
        vector = memory.whole.shape(name)[1] == 1  # a norm's or a bias's
        if laid.dense is None and not vector:
            if len(laid.down):
                # In full precision: what keeps protected prompts still is that long numbers cancel.
                tensors |= _product(key, laid.up.half(), laid.down)
            continue
        if not bool((summed := laid.summed()).any()):
            continue
        if vector:
            tensors[f"{key}.diff{'_b' if name.endswith('.bias') else ''}"] = summed.reshape(-1)
        elif known is not None:  # a linear layer, whose key has a difference or factors
            tensors[f"{key}.diff"] = summed
        else:
            up, down = _touched(summed.float())
            tensors |= _product(key, up.half(), down.half())
    return tensors


def _product(key: str, up: Tensor, down: Tensor) -> dict[str, Tensor]:
    return {
        f"{key}.lora_up.weight": up.contiguous(),
        f"{key}.lora_down.weight": down.clone(),  # projections may share it; a file holds no tensor twice
        f"{key}.alpha": torch.tensor(float(len(down))),
    }


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
        tensors[f"unet.{names[name]}.lora_A.weight"] = down.clone()  # a file holds no tensor twice
        tensors[f"unet.{names[name]}.lora_B.weight"] = up.contiguous()
    return tensors


def _stock_names(whole: ProjectionLayout) -> dict[str, str]:
    """Diffusers' names, by which programs know them, of all layers in transformer blocks."""
    layers = dict.fromkeys(name.removesuffix(".bias") for name in whole.names)
    return diffusers_names(filter(in_transformer, layers))


def _names(memory: ConceptMemory) -> dict[str, str]:
    """In diffusers, of all that was moved. ValueError where a concept moved what has no name there."""
    try:
        return diffusers_names(memory.whole.names)
    except ValueError as error:
        raise ValueError(
            f"{error} This form can hold no other. Choose the form ComfyUI, or share the memory's own file."
        ) from error


def _factors(laid: Laid) -> tuple[Tensor, Tensor]:
    """up `(out, r)` @ down `(r, text_dim)`, float32: all of a projection's change, exactly."""
    if laid.dense is None:
        return laid.up, laid.down
    up, down = _touched(laid.dense.float())
    return torch.cat([up, laid.up], 1), torch.cat([down, laid.down])


def _touched(dense: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix as a product, of its touched rows or columns and a one for each."""
    rows, columns = dense.any(1), dense.any(0)
    if int(rows.sum()) <= int(columns.sum()):
        return torch.eye(len(rows))[:, rows], dense[rows]
    return dense[:, columns], torch.eye(len(columns))[columns]
