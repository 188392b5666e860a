"""What other programs have learned: an embedding's vectors, and the weights of Custom Diffusion."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .export.block_names import diffusers_names
from .projections import ProjectionLayout
from .tensor_file import TensorFile
from .tokens import MAX_VECTORS, TokenVectors
from .values import shown

STILL_OF_USE = "Such an embedding still works beside a memory: write embedding:NAME in the prompt"


def embedding_vectors(file: TensorFile, widths: Mapping[str, int]) -> TokenVectors:
    """The token's vectors for each text encoder, float32 `(n, dim)`.

    widths: of each encoder's token table. For one encoder the file may name its tensor as it likes.

    Raises:
        ValueError: it is for another model, or stands for more vectors than a prompt has room for.
    """
    found = dict(file.tensors)
    if len(widths) == 1 and len(found) == 1:
        found = dict.fromkeys(widths, next(iter(found.values())))
    if set(found) != set(widths):
        seen = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in list(found.items())[:4])
        raise ValueError(
            f"it holds {seen or 'nothing'}; expected an embedding with a tensor for each of the text "
            f"encoders {', '.join(sorted(widths))}"
        )
    vectors = {}
    for encoder, tensor in found.items():
        if not tensor.is_floating_point() or tensor.ndim not in (1, 2) or tensor.shape[-1] != widths[encoder]:
            raise ValueError(
                f"its tensor for {encoder} is {tensor.dtype} {tuple(tensor.shape)}; this model's embeddings "
                f"are {widths[encoder]} wide"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"some of its values for {encoder} are not finite")
        vectors[encoder] = tensor.reshape(-1, widths[encoder]).float()
    counts = {encoder: len(found) for encoder, found in vectors.items()}
    if len({*counts.values()}) > 1 or not 1 <= min(counts.values()) <= MAX_VECTORS:
        raise ValueError(
            f"it stands for {counts} vectors; expected 1 to {MAX_VECTORS}, as many for each text encoder. "
            f"{STILL_OF_USE}"
        )
    return vectors


def custom_diffusion_weights(file: TensorFile, layout: ProjectionLayout) -> dict[str, Tensor]:
    """W `(out, text_dim)` float32 of each projection, from a file of Custom Diffusion (2212.04488) as
    diffusers writes it: `<block>.attn2.processor.to_k_custom_diffusion.weight`.

    Raises:
        ValueError: it is another kind of file, for another model, or has trained more than keys and values.
    """
    ours = {
        name.replace(".attn2.to_", ".attn2.processor.to_") + "_custom_diffusion.weight": original
        for original, name in diffusers_names(layout.names).items()
    }
    tensors = {key.removeprefix("unet."): tensor for key, tensor in file.tensors.items()}
    if missing := sorted(set(ours) - set(tensors)):
        raise ValueError(
            f"it has no {missing[0]}, nor {len(missing) - 1} more of this model's {len(ours)} matrices; "
            "expected a file of Custom Diffusion for it, as diffusers writes them "
            "(pytorch_custom_diffusion_weights.safetensors)"
        )
    if more := sorted(set(tensors) - set(ours)):
        raise ValueError(
            f"it holds {shown(more[0], 120)} as well; of keys and values alone a concept can be made, so "
            "train it with the option freeze_model=crossattn_kv"
        )
    weights = {}
    for key, original in ours.items():
        tensor, shape = tensors[key], layout.shape(original)
        if tuple(tensor.shape) != shape or not tensor.is_floating_point():
            raise ValueError(f"{key} is {tensor.dtype} {tuple(tensor.shape)}; expected {shape}")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"some values of {key} are not finite")
        weights[original] = tensor.float()
    return weights
