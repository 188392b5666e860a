"""What a concept learned along directions leaves: `W_t = W_{t-1} + A U^T`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...projections import ProjectionLayout


class DirectionsChange:
    """A U^T, added to whatever is there.

    Args:
        answers: A, float16 `(rows, r)`, of all projections beneath each other.
        directions: U^T, float32 `(r, text_dim)`, shared by all of them. In full precision, because what keeps
            protected prompts still is that long numbers cancel; A's rounding only scales what they hear.
        gains: float32 `(r,)`.

    Raises:
        ValueError: other shapes or types, or values that are not finite.
    """

    def __init__(self, layout: ProjectionLayout, answers: Tensor, directions: Tensor, gains: Tensor) -> None:
        rows, text_dim, r = sum(out for out, _ in layout.shapes), layout.shapes[0][1], len(gains)
        for name, tensor, dtype, shape in (
            ("answers", answers, torch.float16, (rows, r)),
            ("directions", directions, torch.float32, (r, text_dim)),
            ("gains", gains, torch.float32, (r,)),
        ):
            if tensor.dtype != dtype or tuple(tensor.shape) != shape:
                raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}; expected {dtype} {shape}.")
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"Some of its {name} are not finite.")
        self.layout, self.answers, self.directions, self.gains = layout, answers, directions, gains
        parts = answers.split([out for out, _ in layout.shapes])
        self._parts = dict(zip(layout.names, parts, strict=True))

    @classmethod
    def read(cls, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> DirectionsChange:
        """From `tensors()`; ValueError for anything else."""
        if set(tensors) != {"answers", "directions", "gains"}:
            raise ValueError(f"It has the tensors {sorted(tensors)}; expected answers, directions and gains.")
        return cls(layout, tensors["answers"], tensors["directions"], tensors["gains"].reshape(-1))

    def tensors(self) -> dict[str, Tensor]:
        return {"answers": self.answers, "directions": self.directions, "gains": self.gains}

    def added(self, name: str) -> tuple[Tensor, Tensor]:
        return self._parts[name].float(), self.directions

    def lay(self, name: str, on: Tensor) -> Tensor:
        up, down = self.added(name)
        return torch.addmm(on.float(), up, down).half()

    def refined(self, by: DirectionsChange, ruled: Callable[[str], Tensor]) -> DirectionsChange:
        """Both sums: they are added to whatever is there."""
        return DirectionsChange(
            self.layout,
            torch.cat([self.answers, by.answers], 1).contiguous(),
            torch.cat([self.directions, by.directions]),
            torch.cat([self.gains, by.gains]),
        )

    def moved(self, name: str) -> Tensor:
        return torch.full(self.layout.shape(name), bool(len(self.gains)))

    def summary(self) -> str:
        count = len(self.gains)
        if not count:
            return "its token alone: no direction was its own"
        gains = " to ".join(dict.fromkeys(f"{float(g):.3g}" for g in (self.gains.max(), self.gains.min())))
        return f"{count} direction{'s' * (count > 1)}, gains {gains}"
