"""Drawing with a memory: its values as weight patches on MODEL. Nothing is fused, nothing is left behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.weight_adapter
import torch
from torch import Tensor

from ..laid import Laid
from ..memory import ConceptMemory
from ..weight_scopes import state_dict_key
from .identity import PREFIX
from .types import Model

# Above this share of a matrix, a value for each entry takes less than positions (4 bytes) and values (2).
_DENSE = 1 / 3


class PackedPatch(comfy.weight_adapter.WeightAdapterBase):
    """A weight patch: adds values to one matrix.

    The constructor takes exactly `(loaded_keys, weights)`,
    because newer hosts rebuild adapters from these two.
    weights: `(values (out, in),)`, or, for few entries,
    `(row-major positions int32 (n,), values (n,))`.
    """

    name = "cns"

    def __init__(self, loaded_keys: set[str], weights: tuple[Tensor, ...]) -> None:
        self.loaded_keys = loaded_keys
        self.weights = weights

    def calculate_weight(self, weight: Tensor, key: str, strength: float, *_: Any, **__: Any) -> Tensor:
        """The patched weight, in the weight's dtype; the host has further arguments for other adapters."""
        *where, values = (t.to(weight.device) for t in self.weights)
        if where:
            added = weight.float().reshape(-1).index_add(0, where[0], values.float(), alpha=strength)
        else:
            added = torch.add(weight.float(), values.reshape(weight.shape), alpha=strength)
        return added.reshape(weight.shape).to(weight.dtype)


class FactoredPatch(comfy.weight_adapter.WeightAdapterBase):
    """A weight patch: adds `up (out, r) @ down (r, text_dim)`, and values where there are some besides.

    weights: `(up, down)` or `(up, down, values (out, text_dim))`, summed in float32.
    """

    name = "cns directions"

    def __init__(self, loaded_keys: set[str], weights: tuple[Tensor, ...]) -> None:
        self.loaded_keys = loaded_keys
        self.weights = weights

    def calculate_weight(self, weight: Tensor, key: str, strength: float, *_: Any, **__: Any) -> Tensor:
        """The patched weight, in the weight's dtype."""
        up, down, *values = (t.to(weight.device, torch.float32) for t in self.weights)
        added = torch.addmm(weight.float().reshape(len(up), -1), up, down, alpha=strength)
        for more in values:
            added = added.add_(more, alpha=strength)
        return added.reshape(weight.shape).to(weight.dtype)


def carries_memory(model: Model) -> bool:
    """Whether a memory was applied to this MODEL."""
    ours = (PackedPatch, FactoredPatch)
    return any(isinstance(patch[1], ours) for patches in model.patches.values() for patch in patches)


def apply_changes(
    model: Model, memory: ConceptMemory, strength: float, strengths: Mapping[str, float] | None = None
) -> Model:
    """A clone of MODEL that draws with what the memory holds, scaled by `strength`; exact, and off again
    without a trace.

    strengths: of single concepts, by token.
    """
    patches: dict[str, PackedPatch | FactoredPatch] = {}
    for name, laid in memory.laid(strengths).items():
        key = f"{PREFIX}{state_dict_key(name)}"
        if (patch := _patch(key, laid)) is not None:
            patches[key] = patch
    clone = model.clone()
    refused = set(patches) - set(clone.add_patches(patches, strength))
    if refused:
        raise ValueError(
            f"The loaded model lacks {len(refused)} of the memory's {len(patches)} matrices, e.g. "
            f"{sorted(refused)[0]}."
        )
    return clone


def _patch(key: str, laid: Laid) -> PackedPatch | FactoredPatch | None:
    if len(laid.down):
        values = () if laid.dense is None else (laid.dense,)
        return FactoredPatch({key}, (laid.up, laid.down, *values))
    if laid.dense is None:
        return None
    flat = laid.dense.view(-1)
    moved = flat.nonzero().reshape(-1)
    if len(moved) > _DENSE * len(flat):
        return PackedPatch({key}, (laid.dense,))
    return PackedPatch({key}, (moved.to(torch.int32), flat[moved])) if len(moved) else None
