"""What an erasure that was trained leaves: the difference that it makes to each weight, or to entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..methods.cns.change import CnsChange
from ..methods.cns.masks import NeuronMask
from ..methods.dense_kv import DenseChange
from ..projections import ProjectionLayout
from ..summed import Summed


class Difference(Summed, DenseChange):
    """W_t - W_{t-1} of every weight `(out, text_dim)`, float16. ValueError as of `DenseChange`."""

    @classmethod
    def read(cls, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Difference:
        """From `tensors()`; ValueError for anything else."""
        return cls(layout, tensors)

    def difference(self, name: str) -> Tensor:
        return self._changes[name]

    def refined(self, by: Difference, ruled: Callable[[str], Tensor]) -> Difference:  # type: ignore[override]
        """Both sums."""
        both = {n: (self._changes[n].float() + by._changes[n]).half() for n in self.layout.names}
        return Difference(self.layout, both)


class MaskedDifference(Summed, CnsChange):
    """W_t - W_{t-1} on a mask, float16. ValueError as of `CnsChange`."""

    @classmethod
    def read(cls, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> MaskedDifference:
        """From `tensors()`; ValueError for anything else."""
        change = CnsChange.read(layout, tensors)
        return cls(change.mask, change.values)

    def difference(self, name: str) -> Tensor:
        return CnsChange.lay(self, name, torch.zeros(self.layout.shape(name), dtype=torch.float16))

    def refined(self, by: MaskedDifference, ruled: Callable[[str], Tensor]) -> MaskedDifference:  # type: ignore[override]
        """Both sums."""
        masks = {name: self.moved(name) | by.moved(name) for name in self.layout.names}
        both = [(self.difference(n).float() + by.difference(n)).half()[m] for n, m in masks.items()]
        return MaskedDifference(NeuronMask.from_dense(self.layout, masks), torch.cat(both))

    def summary(self) -> str:
        share = self.mask.count() / self.layout.total
        return f"{self.mask.count():,} entries, {share:.0%} of {len(self.layout.names)} matrices"
