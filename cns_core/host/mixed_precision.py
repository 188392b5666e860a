"""The text encoder's matrix products in bfloat16 while training, everything else of it in float32.

A U-Net that trains in bfloat16 reads text features rounded to it anyway, and on the way there the products
are nearly all of the text encoder's time. What is added up from layer to layer, and the token's own vector,
stay float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn


def weight_dtypes(encoder: nn.Module, products: torch.dtype) -> Mapping[nn.Module, torch.dtype]:
    """What its weights are kept in while training: those of the linear layers in the dtype of their products,
    the others in float32.
    """
    return {encoder: torch.float32, **dict.fromkeys(_linear_layers(encoder), products)}


@contextmanager
def inputs_cast(encoder: nn.Module, products: torch.dtype) -> Iterator[None]:
    """While open, linear layers get what they read in the dtype of their weights. The host would otherwise
    cast the weights to that of the input, at every call.
    """

    def cast(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(tensor.to(products) for tensor in inputs)

    with ExitStack() as hooks:
        for layer in _linear_layers(encoder):
            hooks.callback(layer.register_forward_pre_hook(cast).remove)
        yield


def products_in(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """Context in which an encoder's forward runs; in float32 it changes nothing."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def _linear_layers(encoder: nn.Module) -> list[nn.Module]:
    return [module for module in encoder.modules() if isinstance(module, nn.Linear)]
