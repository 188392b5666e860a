"""A concept while it is learned by low-rank factors: `W_t = W_{t-1} + U D` of each projection."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ...checkpoint import check_alike
from ...method import Change, Earlier, ParameterGroup, WeightFunction
from ...projections import ProjectionLayout
from ..base import AdaptationBase
from .change import LowRankChange


class LowRankAdaptation(AdaptationBase):
    """Only the factors move.

    Args:
        rate: the learning rate of the factors.
        downs: D to start from, float32 `(projections, rank, text_dim)`, or `(1, rank, text_dim)` for all.
        device: where training runs.
        ups: U to start from, `(rows, rank)` of all projections beneath each other; zero where it is None.
        learns_downs: whether D moves too.

    Attributes:
        ups, downs: U and D, float32.
    """

    def __init__(
        self,
        earlier: Earlier,
        rate: float,
        downs: Tensor,
        device: torch.device | str = "cpu",
        ups: Tensor | None = None,
        learns_downs: bool = True,
    ) -> None:
        self.layout, self._rate, self._learns_downs = earlier.layout, rate, learns_downs
        self._earlier = {n: c.to(device) for n, c in earlier.changes().items() if bool(c.any())}
        self._rows = [out for out, _ in self.layout.shapes]
        started = torch.zeros(sum(self._rows), downs.shape[1]) if ups is None else ups
        self.ups = started.to(device, torch.float32, copy=True).requires_grad_()
        self.downs = downs.to(device, torch.float32, copy=True).requires_grad_(learns_downs)
        self._parts: dict[str, tuple[Tensor, Tensor]] = {}
        self.before_forward()

    def parameter_groups(self) -> list[ParameterGroup]:
        parameters = [self.ups, self.downs] if self._learns_downs else [self.ups]
        return [ParameterGroup("factors", "weight_lr", self._rate, parameters)]

    def before_forward(self) -> None:
        """Split the factors by projection; differentiable in them."""
        downs = self.downs.expand(len(self._rows), -1, -1).unbind()
        parts = zip(self.ups.split(self._rows), downs, strict=True)
        self._parts = dict(zip(self.layout.names, parts, strict=True))

    def weight_functions(self) -> dict[str, WeightFunction]:
        return {name: self._weight_function(name) for name in self.layout.names}

    def _weight_function(self, name: str) -> WeightFunction:
        """`f(W) -> W + earlier + U D`, the sum itself taken in float32."""

        def add(weight: Tensor) -> Tensor:
            earlier = self._earlier.get(name)
            before = weight.float() if earlier is None else weight.float() + earlier
            return self._on(name, before).to(weight.dtype)

        return add

    def _on(self, name: str, before: Tensor) -> Tensor:
        """A projection with this concept, from what it was before, float32."""
        return torch.addmm(before, *self._parts[name])

    def penalties(self) -> dict[str, Tensor]:
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        moving = {"ups": self.ups, "downs": self.downs} if self._learns_downs else {"ups": self.ups}
        return {name: tensor.detach().cpu().clone() for name, tensor in moving.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        check_alike(state, self.state_dict(), "the factors")
        with torch.no_grad():
            self.ups.copy_(state["ups"])
            if self._learns_downs:
                self.downs.copy_(state["downs"])
        self.before_forward()

    def factors(self) -> LowRankChange:
        """U and D as they are now. A frozen D is kept in full: others count on what it is orthogonal to."""
        downs = self.downs.detach().half() if self._learns_downs else self.downs
        return LowRankChange(self.layout, self.ups.detach().half().cpu(), downs.cpu())

    def learned(self) -> Change:
        return self.factors()


def random_downs(layout: ProjectionLayout, rank: int, seed: int) -> Tensor:
    """D to start from, float32 `(projections, rank, text_dim)`, random: its rows are about 1 long.

    ValueError when the rank is more than a projection has.
    """
    text_dim = layout.shapes[0][1]
    if rank > min(least := [min(shape) for shape in layout.shapes]):
        raise ValueError(
            f"rank is {rank}, but the smallest of the {len(least)} key and value matrices has rank "
            f"{min(least)}. Set rank to at most that."
        )
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(layout.names), rank, text_dim, generator=generator) / math.sqrt(text_dim)
