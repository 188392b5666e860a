"""Magnitude-based merging (MagMax, 2407.06322): of every entry the largest change that any concept has made.

    tau_t = where(|last| >= |tau_{t-1}|, last, tau_{t-1}),    W_t = W_0 + tau_t

entry by entry, last = U D being what the concept learned on top of tau_{t-1}. It is merged after training, as
in the papers: while it learns, W = W_0 + tau_{t-1} + last, since an entry that loses has no gradient. The
largest of several is the same in any order, but for entries of equal size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...method import Earlier, WeightFunction
from ...projections import ProjectionLayout
from .adaptation import LowRankAdaptation, random_downs
from .change import LowRankChange


class LargestChange:
    """U D of each projection, where it is larger than what is there.

    Args:
        parts: in the order in which they were learned: more than one once a concept was refined.

    Raises:
        ValueError: there are none.
    """

    def __init__(self, layout: ProjectionLayout, parts: tuple[LowRankChange, ...]) -> None:
        if not parts:
            raise ValueError("It has no factors; expected at least one pair of ups and downs.")
        self.layout, self.parts = layout, parts

    @classmethod
    def read(cls, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> LargestChange:
        """From `tensors()`; ValueError for anything else."""
        numbers = range(len(tensors) // 2)
        if set(tensors) != {f"{number}.{what}" for number in numbers for what in ("ups", "downs")}:
            raise ValueError(
                f"It has the tensors {sorted(tensors)}; expected 0.ups, 0.downs, 1.ups and so on."
            )
        parts = [LowRankChange(layout, tensors[f"{n}.ups"], tensors[f"{n}.downs"]) for n in numbers]
        return cls(layout, tuple(parts))

    def tensors(self) -> dict[str, Tensor]:
        return {f"{n}.{what}": t for n, part in enumerate(self.parts) for what, t in part.tensors().items()}

    def lay(self, name: str, on: Tensor) -> Tensor:
        for part in self.parts:
            up, down = part.added(name)
            last = (up @ down).half()
            on = torch.where(last.abs() >= on.abs(), last, on)
        return on

    def added(self, name: str) -> None:
        return None

    def refined(self, by: LargestChange, ruled: Callable[[str], Tensor]) -> LargestChange:
        """The largest of both."""
        return LargestChange(self.layout, (*self.parts, *by.parts))

    def moved(self, name: str) -> Tensor:
        """All of them: which ones are the largest is for other concepts to say, too."""
        return torch.ones(self.layout.shape(name), dtype=torch.bool)

    def summary(self) -> str:
        return f"the largest entries, of rank {sum(part.rank for part in self.parts)}"


class LargestAdaptation(LowRankAdaptation):
    """Summed while it is trained, and merged whenever it is looked at."""

    def __init__(self, earlier: Earlier, rank: int, rate: float, device: torch.device | str = "cpu") -> None:
        self._merged: dict[str, Tensor] = {}
        self._before = earlier.changes()
        super().__init__(earlier, rate, random_downs(earlier.layout, rank, len(earlier.taught())), device)

    def before_forward(self) -> None:
        super().before_forward()
        # The loop asks for gradients in every step, and for none when it has ended or draws a preview.
        self._merged = {} if torch.is_grad_enabled() else self._as_merged()

    def _as_merged(self) -> dict[str, Tensor]:
        change, device = self.learned(), self.ups.device
        return {name: change.lay(name, before).to(device) for name, before in self._before.items()}

    def _weight_function(self, name: str) -> WeightFunction:
        """`f(W) -> W + earlier + U D`, or `W + tau_t` once it is merged."""
        summed = super()._weight_function(name)

        def add(weight: Tensor) -> Tensor:
            merged = self._merged.get(name)
            return summed(weight) if merged is None else (weight.float() + merged).to(weight.dtype)

        return add

    def learned(self) -> LargestChange:
        return LargestChange(self.layout, (self.factors(),))
