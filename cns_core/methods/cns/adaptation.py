"""Packed values on frozen weights: `W_t = W_0 + delta`, delta zero outside what concepts have learned.

Only one flat float32 vector, the entries of the concept being learned, is a parameter. What earlier concepts
left outside those entries is a constant, added to the frozen weights as one dense matrix at each call, so
nothing else can move, and a step of the twentieth concept takes as long as one of the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...checkpoint import check_alike
from ...method import Earlier, ParameterGroup, WeightFunction
from ..base import AdaptationBase
from .change import CnsChange
from .masks import NeuronMask
from .settings import CnsTraining


class CnsAdaptation(AdaptationBase):
    """The neurons of one concept during training.

    Args:
        mask: the entries being learned, M_con of this concept.
        earlier: what concepts before it have left.
        settings: the learning rate, and lambda of L_reg's two terms.
        device: where training runs.

    Attributes:
        values: float32 `(mask.count(),)`, W_t - W_0 on the mask, in flat order.
        shared: positions in it that an earlier concept moved (M_reg of Eq. 7).
        start: W_{t-1} - W_0 at those.
    """

    def __init__(
        self, mask: NeuronMask, earlier: Earlier, settings: CnsTraining, device: torch.device | str = "cpu"
    ) -> None:
        self.mask, self.layout, self.settings = mask, mask.layout, settings
        self._positions: dict[str, Tensor] = {}  # of the values in each flattened projection, int32
        self._earlier: dict[str, Tensor] = {}
        start, shared = [], []
        for name, change in earlier.changes().items():
            mine = mask.dense(name)
            start.append(change[mine])
            shared.append(earlier.moved(name)[mine])
            self._positions[name] = mine.reshape(-1).nonzero().reshape(-1).to(device, torch.int32)
            # Outside the mask, where there is anything.
            outside = change.masked_fill(mine, 0)
            if outside.any():
                self._earlier[name] = outside.to(device)
        self.shared = torch.cat(shared).nonzero().reshape(-1).to(device)
        # Also what no other concept has moved: when the concept itself is learned further, it is not 0.
        self.values = torch.cat(start).float().to(device)
        self.start = self.values[self.shared].clone()
        self.values.requires_grad_()
        self._parts: dict[str, Tensor] = {}
        self.before_forward()

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup("neurons", "neuron_lr", self.settings.neuron_lr, [self.values])]

    def before_forward(self) -> None:
        """Split `values` by projection; differentiable in `values`."""
        parts = self.values.split([len(positions) for positions in self._positions.values()])
        self._parts = dict(zip(self._positions, parts, strict=True))

    def weight_functions(self) -> dict[str, WeightFunction]:
        return {name: self._weight_function(name) for name in self.layout.names}

    def _weight_function(self, name: str) -> WeightFunction:
        """`f(W) -> W + delta`, the sum itself taken in float32."""

        def add_delta(weight: Tensor) -> Tensor:
            earlier, values, positions = self._earlier.get(name), self._parts[name], self._positions[name]
            summed: Tensor = _Sum.apply(weight, earlier, values, positions)  # type: ignore[no-untyped-call]
            return summed

        return add_delta

    def penalties(self) -> dict[str, Tensor]:
        """L_reg (Eq. 7): `keep_earlier ||M_reg (W_t - W_{t-1})||^2 + keep_base ||M_con (W_t - W_0)||^2`."""
        loss = self.values.new_zeros(())
        if self.settings.keep_earlier and len(self.shared):
            moved = self.values[self.shared] - self.start
            loss = loss + self.settings.keep_earlier * moved.square().sum()
        if self.settings.keep_base:
            loss = loss + self.settings.keep_base * self.values.square().sum()
        return {"L_reg": loss}

    def state_dict(self) -> dict[str, Tensor]:
        return {"values": self.values.detach().cpu().clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        check_alike(state, self.state_dict(), "the neurons")
        with torch.no_grad():
            self.values.copy_(state["values"])

    def learned(self) -> CnsChange:
        return CnsChange(self.mask, self.values.detach().cpu().half())


class _Sum(torch.autograd.Function):
    """A weight with earlier and packed values added; only the positions are kept for the gradient."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, earlier: Tensor | None, values: Tensor, positions: Tensor
    ) -> Tensor:
        ctx.save_for_backward(positions)
        if earlier is None:
            summed = weight.clone(memory_format=torch.contiguous_format)
        else:
            summed = (weight + earlier).to(weight.dtype)  # float16 and bfloat16 meet in float32
        flat = summed.view(-1)
        flat[positions] = (flat[positions].float() + values).to(flat.dtype)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor, None]:
        (positions,) = ctx.saved_tensors
        return None, None, gradient.reshape(-1)[positions].float(), None
