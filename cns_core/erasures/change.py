"""What an erasure leaves: one low-rank map of text features, as each projection answers to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..projections import ProjectionLayout


class ErasedChange:
    """`W_t = W_{t-1} + up @ down`, added to whatever is there, so that taking it out leaves no rest.

    Args:
        ups: float16 `(rows, r)`, of all projections beneath each other.
        down: float32 `(r, text_dim)`, shared by all of them, in full precision: what keeps protected prompts
            still is that long numbers cancel.

    Raises:
        ValueError: other shapes or types, or values that are not finite.
    """

    def __init__(self, layout: ProjectionLayout, ups: Tensor, down: Tensor) -> None:
        rows, text_dim, r = sum(out for out, _ in layout.shapes), layout.shapes[0][1], len(down)
        for name, tensor, dtype, shape in (
            ("ups", ups, torch.float16, (rows, r)),
            ("down", down, torch.float32, (r, text_dim)),
        ):
            if tensor.dtype != dtype or tuple(tensor.shape) != shape:
                raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}; expected {dtype} {shape}.")
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"Some of its {name} are not finite.")
        self.layout, self.ups, self.down = layout, ups, down
        parts = ups.split([out for out, _ in layout.shapes])
        self._parts = dict(zip(layout.names, parts, strict=True))

    @classmethod
    def read(cls, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> ErasedChange:
        """From `tensors()`; ValueError for anything else."""
        if set(tensors) != {"ups", "down"}:
            raise ValueError(f"It has the tensors {sorted(tensors)}; expected ups and down.")
        return cls(layout, tensors["ups"], tensors["down"])

    def tensors(self) -> dict[str, Tensor]:
        return {"ups": self.ups, "down": self.down}

    def added(self, name: str) -> tuple[Tensor, Tensor]:
        return self._parts[name].float(), self.down

    def lay(self, name: str, on: Tensor) -> Tensor:
        up, down = self.added(name)
        return torch.addmm(on.float(), up, down).half()

    def refined(self, by: ErasedChange, ruled: Callable[[str], Tensor]) -> ErasedChange:
        """Both sums: they are added to whatever is there."""
        ups, down = torch.cat([self.ups, by.ups], 1), torch.cat([self.down, by.down])
        return ErasedChange(self.layout, ups.contiguous(), down)

    def moved(self, name: str) -> Tensor:
        return torch.full(self.layout.shape(name), bool(len(self.down)))

    def summary(self) -> str:
        return f"{len(self.down)} direction{'s' * (len(self.down) != 1)} of the text features led elsewhere"
