"""Inference tensors made trainable-through: the host loads models under `inference_mode`, and autograd
cannot save such tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def plain_tensors(*modules: nn.Module) -> Iterator[None]:
    """While open, every inference parameter and buffer is a plain tensor over the same memory; then the very
    same objects return.

    Nothing is copied and no weight changes. Must be entered outside `inference_mode`.
    """
    swapped: list[tuple[dict[str, Tensor | None], str, Tensor]] = []
    try:
        for module in (m for root in modules for m in root.modules()):
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None and tensor.is_inference():
                        swapped.append((tensors, name, tensor))  # type: ignore[arg-type]
                        alias = _alias(tensor)
                        tensors[name] = (
                            nn.Parameter(alias, requires_grad=False)
                            if isinstance(tensor, nn.Parameter)
                            else alias
                        )
        yield
    finally:
        for tensors, name, tensor in swapped:
            tensors[name] = tensor


def _alias(tensor: Tensor) -> Tensor:
    """A plain tensor over the storage of an inference tensor."""
    if type(tensor) not in (Tensor, nn.Parameter):
        return tensor.detach().clone()  # a quantised subclass has no plain storage to share
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return empty.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
