"""The host's frozen weights made ready for training: plain tensors, in the dtype that they are computed in.

The host loads models under `inference_mode`, and autograd cannot save such tensors. Where weights are kept
in another dtype than is computed in, the host casts each of them at every call, and autograd keeps the casts
until the backward; cast once, they take the same memory and no time. What they were cast from waits in main
memory: a GPU that held SDXL's weights twice would be full before the first step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_ASIDE = torch.device("cpu")
_CAST = (torch.float16, torch.bfloat16, torch.float32)  # fp8 weights come with scales that the host applies


@contextmanager
def frozen_weights(compute_dtypes: Mapping[nn.Module, torch.dtype | None]) -> Iterator[None]:
    """While open, the parameters of these modules are plain tensors of the given dtype (None: of their own),
    rounded as the host's own casts do, and inference buffers are plain tensors over the same memory; then
    the very same objects return. A module named after another that holds it goes by its own dtype.

    Embeddings, of which few rows are read, keep their dtype. No weight changes.
    Must be entered outside `inference_mode`.
    """
    swapped: list[tuple[dict[str, Tensor | None], str, Tensor]] = []
    made: dict[int, Tensor] = {}  # by what they were made from, which several modules may share
    aside: list[tuple[Tensor, torch.device]] = []
    dtypes = {module: dtype for root, dtype in compute_dtypes.items() for module in root.modules()}
    try:
        for module, dtype in dtypes.items():
            wanted = None if isinstance(module, nn.Embedding) else dtype
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is None:
                        continue
                    if (ready := made.get(id(tensor))) is None:
                        ready = _ready(tensor, wanted if isinstance(tensor, nn.Parameter) else None)
                        made[id(tensor)] = ready
                        if ready.dtype != tensor.dtype and tensor.device != _ASIDE:
                            aside.append((tensor, tensor.device))
                            _move(tensor, _ASIDE)
                    if ready is not tensor:
                        swapped.append((tensors, name, tensor))  # type: ignore[arg-type]
                        tensors[name] = ready  # type: ignore[assignment]
        yield
    finally:
        for tensors, name, tensor in swapped:
            tensors[name] = tensor
        made.clear()
        for tensor, device in aside:
            _move(tensor, device)


def _move(tensor: Tensor, device: torch.device) -> None:
    """The same object, its values elsewhere."""
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        tensor.data = tensor.data.to(device)


def _ready(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    plain = tensor
    if dtype is not None and dtype != tensor.dtype and tensor.dtype in _CAST and _is_simple(tensor):
        plain = tensor.detach().to(dtype)
    elif tensor.is_inference():
        plain = _alias(tensor)
    if plain is not tensor and isinstance(tensor, nn.Parameter):
        return nn.Parameter(plain, requires_grad=False)
    return plain


def _alias(tensor: Tensor) -> Tensor:
    """A plain tensor over the storage of an inference tensor."""
    if not _is_simple(tensor):
        return tensor.detach().clone()  # a quantised subclass has no plain storage to share
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return empty.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())


def _is_simple(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, nn.Parameter)
