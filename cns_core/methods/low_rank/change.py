"""What a concept learned by low-rank factors leaves: `W_t = W_{t-1} + U D`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...projections import ProjectionLayout

_DOWN_TYPES = (torch.float16, torch.float32)


class LowRankChange:
    """U D of each projection, added to whatever is there.

    Args:
        ups: U, float16 `(rows, r)`, of all projections beneath each other.
        downs: D `(projections, r, text_dim)`, or `(1, r, text_dim)` where all projections share one. float16,
            or float32 where concepts are kept apart because long numbers cancel.

    Raises:
        ValueError: other shapes or types, or values that are not finite.
    """

    def __init__(self, layout: ProjectionLayout, ups: Tensor, downs: Tensor) -> None:
        rows, text_dim = sum(out for out, _ in layout.shapes), layout.shapes[0][1]
        rank = ups.shape[-1] if ups.ndim else 0
        if ups.dtype != torch.float16 or tuple(ups.shape) != (rows, rank) or not rank:
            raise ValueError(
                f"ups is {ups.dtype} {tuple(ups.shape)}; expected float16 ({rows}, rank), of a rank above 0."
            )
        shapes = [(count, rank, text_dim) for count in (len(layout.names), 1)]
        if downs.dtype not in _DOWN_TYPES or tuple(downs.shape) not in shapes:
            raise ValueError(
                f"downs is {downs.dtype} {tuple(downs.shape)}; expected float16 or float32 of {shapes[0]} or "
                f"{shapes[1]}."
            )
        for what, tensor in (("ups", ups), ("downs", downs)):
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"Some of its {what} are not finite.")
        self.layout, self.ups, self.downs = layout, ups, downs
        parts = ups.split([out for out, _ in layout.shapes])
        self._ups = dict(zip(layout.names, parts, strict=True))
        self._downs = dict(zip(layout.names, downs.expand(len(layout.names), -1, -1), strict=True))

    @classmethod
    def read(cls, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> LowRankChange:
        """From `tensors()`; ValueError for anything else."""
        if set(tensors) != {"ups", "downs"}:
            raise ValueError(f"It has the tensors {sorted(tensors)}; expected ups and downs.")
        return cls(layout, tensors["ups"], tensors["downs"])

    @property
    def rank(self) -> int:
        return self.ups.shape[1]

    @property
    def shared(self) -> bool:
        """Whether one D serves all projections."""
        return len(self.downs) == 1

    def tensors(self) -> dict[str, Tensor]:
        return {"ups": self.ups, "downs": self.downs}

    def added(self, name: str) -> tuple[Tensor, Tensor]:
        return self._ups[name].float(), self._downs[name].float()

    def lay(self, name: str, on: Tensor) -> Tensor:
        up, down = self.added(name)
        return torch.addmm(on.float(), up, down).half()

    def refined(self, by: LowRankChange, ruled: Callable[[str], Tensor]) -> LowRankChange:
        """Both sums: they are added to whatever is there."""
        return LowRankChange(self.layout, *joined(by, self))

    def moved(self, name: str) -> Tensor:
        return torch.ones(self.layout.shape(name), dtype=torch.bool)

    def summary(self) -> str:
        return f"rank {self.rank}, {self.ups.numel() + self.downs.numel():,} values"


def joined(first: LowRankChange, second: LowRankChange) -> tuple[Tensor, Tensor]:
    """(ups, downs) of the sum of both, the first one's columns and rows first."""
    downs = [first.downs, second.downs]
    if first.shared != second.shared:
        downs = [d.expand(len(first.layout.names), -1, -1) for d in downs]
    return torch.cat([first.ups, second.ups], 1), torch.cat(downs, 1)
