"""The text encoder in mixed precision while training: linear layers and attention in bfloat16; what is added
up from layer to layer, the norms and the token's own vector in float32.

A U-Net that trains in bfloat16 reads text features rounded to it anyway, and on the way there the linear
layers are nearly all of the text encoder's time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from torch import Tensor, nn


def weight_dtypes(encoder: nn.Module, dtype: torch.dtype) -> Mapping[nn.Module, torch.dtype]:
    """What its weights are kept in while training:
    those of the linear layers in the given dtype, the others in float32.
    """
    return {encoder: torch.float32, **dict.fromkeys(_linear_layers(encoder), dtype)}


@contextmanager
def inputs_cast(encoder: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """While open, linear layers get what they read in this dtype, that of their weights. The host would
    otherwise cast the weights to that of the input, at every call.
    """

    def cast(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(tensor.to(dtype) for tensor in inputs)

    with ExitStack() as hooks:
        for layer in _linear_layers(encoder):
            hooks.callback(layer.register_forward_pre_hook(cast).remove)
        yield


def computing_in(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[None]:
    """Context in which an encoder's forward runs."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def _linear_layers(encoder: nn.Module) -> list[nn.Module]:
    return [module for module in encoder.modules() if isinstance(module, nn.Linear)]
