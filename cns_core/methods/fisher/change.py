"""Concept neurons with how much each of them mattered: what is left of a concept for later ones to spare."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...method import Earlier
from ...projections import ProjectionLayout
from ..cns.change import CnsChange
from ..cns.masks import NeuronMask


class FisherChange(CnsChange):
    """A mask, values and the diagonal of the Fisher information on the mask.

    Args:
        fisher: float16 `(mask.count(),)`, in flat order, not negative; in units of its mean.

    Raises:
        ValueError: as of CNS's change, and for another diagonal than that.
    """

    def __init__(self, mask: NeuronMask, values: Tensor, fisher: Tensor) -> None:
        super().__init__(mask, values)
        if fisher.dtype != torch.float16 or fisher.shape != values.shape:
            raise ValueError(
                f"Its Fisher information is {fisher.dtype} of shape {tuple(fisher.shape)}; float16 of shape "
                f"{tuple(values.shape)} was expected."
            )
        if not bool(((fisher >= 0) & torch.isfinite(fisher)).all()):
            raise ValueError("Some of its Fisher information is negative or not finite.")
        self.fisher = fisher

    @classmethod
    def read(cls, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> FisherChange:
        if set(tensors) != {"mask", "values", "fisher"}:
            raise ValueError(f"It has the tensors {sorted(tensors)}; expected mask, values and fisher.")
        mask = NeuronMask(layout, tensors["mask"].numpy())
        return cls(mask, tensors["values"], tensors["fisher"])

    def tensors(self) -> dict[str, Tensor]:
        return {**super().tensors(), "fisher": self.fisher}

    def refined(self, by: FisherChange, ruled: Callable[[str], Tensor]) -> FisherChange:  # type: ignore[override]
        """As CNS's; where both know how much an entry mattered, the later one does."""
        both = super().refined(by, ruled)
        flat = torch.zeros(self.layout.total, dtype=torch.float16)
        for change in (self, by):
            flat[torch.from_numpy(change.mask.flat())] = change.fisher
        return FisherChange(both.mask, both.values, flat[torch.from_numpy(both.mask.flat())])

    def dense_fisher(self) -> dict[str, Tensor]:
        """By projection, float32 `(out, text_dim)`; 0 outside the mask."""
        found = {}
        parts = self.fisher.split(list(self.mask.count_per_projection().values()))
        for (name, shape, _), part in zip(self.layout.slices(), parts, strict=True):
            found[name] = torch.zeros(shape)
            found[name][self.mask.dense(name)] = part.float()
        return found

    def summary(self) -> str:
        return f"{self.mask.count():,} neurons with their Fisher information"


def importance(earlier: Earlier) -> dict[str, Tensor]:
    """How much each entry mattered to earlier concepts, by projection, float32 `(out, text_dim)`: the sum of
    their Fisher information, and 1 where a concept moved it of which there is none.
    """
    layout = earlier.layout
    found = {name: torch.zeros(shape) for name, shape, _ in layout.slices()}
    others = {name: torch.zeros(shape, dtype=torch.bool) for name, shape, _ in layout.slices()}
    for change in earlier.left().values():
        if isinstance(change, FisherChange):
            for name, fisher in change.dense_fisher().items():
                found[name] += fisher
        else:
            for name, moved in others.items():
                moved |= change.moved(name)
    return {name: total + others[name] for name, total in found.items()}
