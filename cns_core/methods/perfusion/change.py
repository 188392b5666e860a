"""What a concept learned by Perfusion leaves: `W_t = W_{t-1} + (o* - W_{t-1} i*) g`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...projections import ProjectionLayout
from ..low_rank.change import LowRankChange, joined


class PerfusionChange(LowRankChange):
    """One rank-one edit of every projection; several where a concept was learned further.

    Args:
        ups: o* - W i*, float16 `(rows, r)`.
        downs: g, float32 `(1, r, text_dim)`, in full precision: what keeps other prompts still is that long
            numbers cancel.
        targets: i*, float32 `(r, text_dim)`: what later concepts answer nothing to.

    Raises:
        ValueError: other shapes or types, or values that are not finite.
    """

    def __init__(self, layout: ProjectionLayout, ups: Tensor, downs: Tensor, targets: Tensor) -> None:
        super().__init__(layout, ups, downs)
        if not self.shared or downs.dtype != torch.float32:
            raise ValueError(
                f"downs is {downs.dtype} {tuple(downs.shape)}; expected float32 (1, {self.rank}, text_dim)."
            )
        if targets.dtype != torch.float32 or targets.shape != downs[0].shape:
            seen, wanted = tuple(targets.shape), tuple(downs[0].shape)
            raise ValueError(f"targets is {targets.dtype} {seen}; expected float32 {wanted}.")
        if not bool(torch.isfinite(targets).all()):
            raise ValueError("Some of its targets are not finite.")
        self.targets = targets

    @classmethod
    def read(cls, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> PerfusionChange:
        """From `tensors()`; ValueError for anything else."""
        if set(tensors) != {"ups", "downs", "targets"}:
            raise ValueError(f"It has the tensors {sorted(tensors)}; expected ups, downs and targets.")
        return cls(layout, tensors["ups"], tensors["downs"], tensors["targets"])

    def tensors(self) -> dict[str, Tensor]:
        return {**super().tensors(), "targets": self.targets}

    def refined(self, by: LowRankChange, ruled: Callable[[str], Tensor]) -> PerfusionChange:
        """Both sums: the later edit starts from what the earlier one answers."""
        if not isinstance(by, PerfusionChange):
            raise TypeError(f"A {type(by).__name__} was not learned by Perfusion.")
        return PerfusionChange(self.layout, *joined(by, self), torch.cat([by.targets, self.targets]))

    def summary(self) -> str:
        edits = "one rank-one edit" if self.rank == 1 else f"{self.rank} rank-one edits"
        return f"{edits}, {self.ups.numel() + 2 * self.targets.numel():,} values"
