"""Packed values on frozen weights: `W_t = W_0 + delta`, delta zero outside what concepts have learned.

Only one flat float32 vector, the entries of the concept being learned, is a parameter. What earlier concepts
left outside those entries is part of the frozen weights, so nothing else can move, and the twentieth concept
takes a step as fast as the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .masks import NeuronMask
from .positions import PackedPositions


class PackedDelta:
    """The delta during training.

    mask: the entries being learned (M_con of this concept). earlier_mask, earlier_values: the union of what
    earlier concepts learned and its values `(earlier_mask.count(),)`, relative to W_0. Call
    `update()` after `values` changed and before the next forward.

    values: float32 `(mask.count(),)`, W_t - W_0 on the mask. shared: positions in it that an earlier concept
    moved (M_reg of Eq. 7); start: W_{t-1} - W_0 there.
    """

    def __init__(
        self,
        mask: NeuronMask,
        earlier_mask: NeuronMask | None = None,
        earlier_values: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if earlier_mask is None or earlier_values is None:
            earlier_mask, earlier_values = NeuronMask.empty(mask.layout), torch.zeros(0)
        if earlier_values.shape != (earlier_mask.count(),):
            raise ValueError(
                f"{tuple(earlier_values.shape)} earlier values for {earlier_mask.count():,} entries; give "
                "one value per entry."
            )
        self.mask = mask
        self.layout = mask.layout
        self.enabled = True
        self.values = torch.zeros(mask.count(), device=device)
        # Over all of K/V: to look for places in the union of many concepts would take seconds.
        earlier = earlier_values.new_zeros(mask.layout.total)
        earlier[earlier_mask.flat_indices()] = earlier_values
        both = (mask & earlier_mask).flat_indices()
        self.shared = torch.searchsorted(mask.flat_indices(), both).to(device)
        self.start = earlier[both].float().to(device)
        self.values[self.shared] = self.start
        self.values.requires_grad_()
        self._positions = {n: PackedPositions(mask.indices(n), device) for n in self.layout.names}
        self._earlier = _Earlier(earlier, earlier_mask - mask)
        self._parts: dict[str, Tensor] = {}
        self.update()

    def update(self) -> None:
        """Split `values` by projection, once per step; differentiable in `values`."""
        parts = self.values.split([len(positions) for positions in self._positions.values()])
        self._parts = dict(zip(self._positions, parts, strict=True))

    def weight_function(self, name: str) -> Callable[[Tensor], Tensor]:
        """`f(W) -> W + delta` for one projection, out of place, in W's dtype; the sum itself is taken in
        float32.
        """
        if name not in self._positions:
            raise ValueError(f"No projection {name!r} in this delta.")

        def add_delta(weight: Tensor) -> Tensor:
            if not self.enabled:
                return weight
            frozen = self._earlier.added_to(weight, name)
            return _Sum.apply(frozen, self._parts[name], self._positions[name])

        return add_delta

    def position_bytes(self) -> int:
        """Bytes that tell which entries the values belong to."""
        return sum(positions.nbytes() for positions in self._positions.values())


class _Earlier:
    """What earlier concepts left outside the mask, added to the frozen weights when they are first seen."""

    def __init__(self, values: Tensor, only: NeuronMask) -> None:
        """values: of every entry `(layout.total,)`; only: which of them to add."""
        kept = values[only.flat_indices()]
        positions = {name: PackedPositions(only.indices(name)) for name in only.layout.names}
        parts = kept.split([len(where) for where in positions.values()])
        self._left = {n: (w, v) for (n, w), v in zip(positions.items(), parts, strict=True) if len(w)}
        self._sums: dict[str, Tensor] = {}

    def added_to(self, weight: Tensor, name: str) -> Tensor:
        if name not in self._left:
            return weight
        known = self._sums.get(name)
        if known is None or known.dtype != weight.dtype or known.device != weight.device:
            positions, values = self._left[name]
            # Not an inference tensor, should the first look come from drawing a preview.
            with torch.inference_mode(False), torch.no_grad():
                where, values = (t.to(weight.device) for t in (positions.unpacked(), values))
                known = self._sums[name] = _with_values(weight, values, where)
        return known


class _Sum(torch.autograd.Function):
    """A weight with packed values added; only the positions are kept for the gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, values: Tensor, positions: PackedPositions) -> Tensor:
        ctx.positions = positions
        return _with_values(weight, values, positions.unpacked())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        return None, gradient.reshape(-1)[ctx.positions.unpacked()].float(), None


def _with_values(weight: Tensor, values: Tensor, where: Tensor) -> Tensor:
    summed = weight.clone(memory_format=torch.contiguous_format)
    flat = summed.view(-1)
    flat[where] = (flat[where].float() + values).to(flat.dtype)
    return summed
