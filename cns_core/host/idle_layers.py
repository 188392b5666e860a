"""Text encoder layers that add nothing to what passes through them are not run while selecting and training.

A small base may fill the checkpoint's twelve layers with exact identities; running them, forward and backward
for every caption, would be most of a training step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def idle_layers_left_out(clip: Any) -> Iterator[None]:
    """While open, `clip`'s CLIP text encoders lack the layers whose two branches end in zeros; what they put
    out stays the same, bit for bit. With clip skip, which counts layers, nothing is left out.
    """
    shortened: list[tuple[Any, nn.ModuleList]] = []
    clip.cond_stage_model.reset_clip_options()  # another clone's clip skip may still be set
    try:
        for encoder in clip.cond_stage_model.children():
            if clip.layer_idx is not None or getattr(encoder, "layer", None) != "last":
                continue
            stack = encoder.transformer.text_model.encoder
            busy = [layer for layer in stack.layers if not _is_idle(layer)]
            if len(busy) < len(stack.layers):
                shortened.append((stack, stack.layers))
                stack.layers = nn.ModuleList(busy)
        yield
    finally:
        for stack, layers in shortened:
            stack.layers = layers


def _is_idle(layer: nn.Module) -> bool:
    last = (layer.self_attn.out_proj, layer.mlp.fc2)  # of the two branches
    return not any(tensor.any() for module in last for tensor in module.parameters())
