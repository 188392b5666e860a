"""What a concept learned by its neurons leaves: a mask, and the values of the entries in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...projections import ProjectionLayout
from .masks import NeuronMask


class CnsChange:
    """W - W_0 on a mask, as it was right after the concept was learned.
    Laid on what was before, these entries take the place of their former values.

    Args:
        mask: which entries.
        values: float16 `(mask.count(),)`, in flat order.

    Raises:
        ValueError: other values than the mask asks for, or some that are not finite.
    """

    def __init__(self, mask: NeuronMask, values: Tensor) -> None:
        if values.dtype != torch.float16 or values.shape != (mask.count(),):
            raise ValueError(
                f"There are {values.dtype} values of shape {tuple(values.shape)}; the mask selects "
                f"{mask.count():,} entries, so float16 of shape ({mask.count()},) was expected."
            )
        if not _are_finite(values):
            raise ValueError("Some of its values are not finite.")
        self.mask, self.values, self.layout = mask, values, mask.layout
        parts = values.split(list(mask.count_per_projection().values()))
        self._parts = dict(zip(mask.layout.names, parts, strict=True))

    @classmethod
    def read(cls, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> CnsChange:
        """From `tensors()`; ValueError for anything else."""
        if set(tensors) != {"mask", "values"}:
            raise ValueError(f"It has the tensors {sorted(tensors)}; expected mask and values.")
        return cls(NeuronMask(layout, tensors["mask"].numpy()), tensors["values"])

    def tensors(self) -> dict[str, Tensor]:
        return {"mask": torch.from_numpy(self.mask.bits.copy()), "values": self.values}

    def lay(self, name: str, on: Tensor) -> Tensor:
        on.view(-1).numpy()[self.mask.row_major(name)] = self._parts[name].numpy()
        return on

    def added(self, name: str) -> None:
        return None

    def refined(self, by: CnsChange, ruled: Callable[[str], Tensor]) -> CnsChange:
        """Entries of both masks, without those that are others' now."""
        masks, values = {}, []
        for name, shape, _ in self.layout.slices():
            laid = torch.zeros(shape, dtype=torch.float16)
            laid = by.lay(name, self.lay(name, laid))
            masks[name] = (self.moved(name) & ~ruled(name)) | by.moved(name)
            values.append(laid[masks[name]])
        return CnsChange(NeuronMask.from_dense(self.layout, masks), torch.cat(values))

    def moved(self, name: str) -> Tensor:
        return self.mask.dense(name)

    def summary(self) -> str:
        return f"{self.mask.count():,} neurons"


def _are_finite(values: Tensor) -> bool:
    """By the least and the largest, either of which is NaN where any value is: that takes a tenth of the time
    that looking at each does, and a concept of SDXL's has 22 million.
    """
    return not len(values) or bool(values.min().isfinite() & values.max().isfinite())
