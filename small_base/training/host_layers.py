"""A start for ComfyUI's layers: they come with uninitialised memory, since weights are always loaded."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

_KINDS = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm, nn.Embedding)


def initialise(module: nn.Module, zeroed: Iterable[nn.Module] = ()) -> None:
    """Give every layer PyTorch's own start; those in `zeroed` begin by adding nothing."""
    for layer in module.modules():
        for kind in _KINDS:
            if isinstance(layer, kind):
                kind.reset_parameters(layer)
    for layer in zeroed:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
