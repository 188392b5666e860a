"""The weights that a MODEL, CLIP or VAE computes with: what its file held, and the patches laid on that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.lora
import comfy.model_management as management
import torch
from torch import Tensor

_PLAIN = (Tensor, torch.nn.Parameter)


class Weights:
    """The weights of a patcher whose names start with `prefix`, read clean: whatever this or another clone
    has the host hold merged at the moment.

    Raises (whatever reads a weight):
        ValueError: they are of a kind that only the node that loaded them can read.
    """

    def __init__(self, patcher: Any, prefix: str = "") -> None:
        self._found: dict[str, list[Any]] = patcher.get_key_patches(prefix)

    def names(self) -> list[str]:
        """Sorted, without what holds no numbers with a fraction (positions)."""
        return sorted(n for n, found in self._found.items() if found[0][0].dtype.is_floating_point)

    def dtype(self, name: str) -> torch.dtype:
        """That in which the weight is held."""
        return _held(self._found[name]).dtype

    def patched(self, added: bool = True) -> bool:
        """Whether any carries a patch; see `computed`."""
        return any(_counting(found[1:], added) for found in self._found.values())

    def computed(self, name: str, added: bool = True) -> Tensor:
        """One weight, patched as the host patches it.

        added: with what is added to the model (a LoRA), else with what mixes it with other models alone.
        """
        found = self._found[name]
        held, patches = _held(found), _counting(found[1:], added)
        if not patches:
            return held
        copy = held.to(management.get_torch_device(), torch.float32, copy=True)
        patched: Tensor = comfy.lora.calculate_weight(patches, copy, name)
        return patched.to(held.device)


def _held(found: Sequence[Any]) -> Tensor:
    """A plain tensor; quantised ones, which the host has a subclass for, are dequantised."""
    weight, convert = found[0]
    weight = convert(weight) if convert is not None else weight
    if type(weight) in _PLAIN:
        return weight  # type: ignore[no-any-return]
    try:
        plain: Tensor = weight.dequantize()
    except (NotImplementedError, RuntimeError, AttributeError) as error:
        raise ValueError(
            f"This model's weights are held as {type(weight).__name__}, as some custom loaders do (GGUF and "
            "the like), which cannot be read here. Load the model as a .safetensors file with ComfyUI's own "
            "loaders; fp8 is possible."
        ) from error
    return plain


def _counting(patches: Sequence[Any], added: bool) -> list[Any]:
    return [patch for patch in patches if added or _mixes(patch)]


def _mixes(patch: Any) -> bool:
    """Of a merge of models the host keeps the other model's weight with its own patches, as a list, and
    scales the first one's.
    """
    return isinstance(patch[1], list) or patch[2] != 1.0
