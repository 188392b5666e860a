"""Drawing with a memory: its values as weight patches on MODEL, its tokens in CLIP. Nothing is fused,
nothing is left behind.
"""

from __future__ import annotations

from typing import Any

import comfy.weight_adapter
import torch
from torch import Tensor

from ..memory import ConceptMemory

# Above this share of a matrix, a value for each entry takes less than positions (4 bytes) and values (2).
_DENSE = 1 / 3


class PackedPatch(comfy.weight_adapter.WeightAdapterBase):  # type: ignore[misc]
    """A weight patch: adds values to one matrix.

    The constructor takes exactly `(loaded_keys, weights)`, because newer hosts rebuild adapters from these
    two. weights: `(values (out, text_dim),)`, or, for few entries, `(row-major positions int32 (n,), values
    (n,))`.
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
        *where, values = (t.to(weight.device) for t in self.weights)
        if where:
            added = weight.float().reshape(-1).index_add(0, where[0], values.float(), alpha=strength)
        else:
            added = torch.add(weight.float(), values, alpha=strength)
        return added.reshape(weight.shape).to(weight.dtype)


def carries_memory(model: Any) -> bool:
    return any(isinstance(patch[1], PackedPatch) for patches in model.patches.values() for patch in patches)


def apply_values(model: Any, memory: ConceptMemory, strength: float) -> Any:
    """A clone of MODEL that draws with the memory's values, scaled by `strength`; exact, and off again
    without a trace.
    """
    union, values = memory.union_mask(), memory.values()
    counts = union.count_per_projection()
    patches: dict[str, PackedPatch] = {}
    for name, shape, where in memory.layout.slices():
        key, here = f"diffusion_model.{name}.weight", values[where]
        if counts[name] > _DENSE * len(here):
            patches[key] = PackedPatch({key}, (here.reshape(shape),))
        elif counts[name]:
            indices = union.indices(name)
            patches[key] = PackedPatch({key}, (indices.to(torch.int32), here[indices]))
    clone = model.clone()
    refused = set(patches) - set(clone.add_patches(patches, strength))
    if refused:
        raise ValueError(
            f"The loaded model lacks {len(refused)} of the memory's {len(patches)} matrices, e.g. "
            f"{sorted(refused)[0]}."
        )
    return clone
