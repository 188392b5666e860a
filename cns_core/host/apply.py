"""Drawing with a memory: its values as weight patches on MODEL, its tokens in CLIP. Nothing is fused,
nothing is left behind.
"""

from __future__ import annotations

from typing import Any

import comfy.weight_adapter
import torch
from torch import Tensor

from ..memory import ConceptMemory


class PackedPatch(comfy.weight_adapter.WeightAdapterBase):  # type: ignore[misc]
    """A sparse weight patch: adds values at row-major positions of one matrix.

    The constructor takes exactly `(loaded_keys, weights)`, because newer hosts rebuild adapters from these
    two. weights: `(indices int32 (n,), values (n,))`.
    """

    name = "cns"

    def __init__(self, loaded_keys: set[str], weights: tuple[Tensor, ...]) -> None:
        self.loaded_keys = loaded_keys
        self.weights = weights

    def calculate_weight(
        self,
        weight: Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: Any,
        function: Any,
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: Any = None,
    ) -> Tensor:
        indices, values = (t.to(weight.device) for t in self.weights)
        added = weight.float().reshape(-1).index_add(0, indices, values.float(), alpha=strength)
        return added.reshape(weight.shape).to(weight.dtype)


def carries_memory(model: Any) -> bool:
    return any(isinstance(patch[1], PackedPatch) for patches in model.patches.values() for patch in patches)


def apply_values(model: Any, memory: ConceptMemory, strength: float) -> Any:
    """A clone of MODEL that draws with the memory's values, scaled by `strength`; exact, and off again
    without a trace.
    """
    union, values = memory.union_mask(), memory.values()
    patches: dict[str, PackedPatch] = {}
    begin = 0
    for name in memory.layout.names:
        indices = union.indices(name)
        here = values[begin : begin + len(indices)]
        begin += len(indices)
        if len(indices):
            key = f"diffusion_model.{name}.weight"
            patches[key] = PackedPatch({key}, (indices.to(torch.int32), here))
    clone = model.clone()
    refused = set(patches) - set(clone.add_patches(patches, strength))
    if refused:
        raise ValueError(
            f"The loaded model lacks {len(refused)} of the memory's {len(patches)} matrices, e.g. "
            f"{sorted(refused)[0]}."
        )
    return clone
