"""Packed values on frozen weights: `W_t = W_0 + delta`, delta zero outside what concepts have learned.

Only one flat float32 vector, the entries of the concept being learned, is a parameter. What earlier concepts
left outside those entries is a constant, added to the frozen weights as one dense matrix at each call, so
nothing else can move, and a step of the twentieth concept takes as long as one of the first.
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

    mask: the entries being learned (M_con of this concept). earlier_mask, earlier_values: what earlier
    concepts moved, and W_{t-1} - W_0 over all of K/V, `(layout.total,)`, 0 elsewhere. Call `update()` after
    `values` changed and before the next forward.

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
            earlier_mask, earlier_values = NeuronMask.empty(mask.layout), torch.zeros(mask.layout.total)
        if earlier_values.shape != (mask.layout.total,):
            raise ValueError(
                f"Earlier values of shape {tuple(earlier_values.shape)} for {mask.layout.total:,} K/V "
                "entries; give one value for each entry, 0 where no concept moved it."
            )
        self.mask = mask
        self.layout = mask.layout
        self.enabled = True
        self.values = torch.zeros(mask.count(), device=device)
        both = (mask & earlier_mask).flat_indices()
        self.shared = torch.searchsorted(mask.flat_indices(), both).to(device)
        self.start = earlier_values[both].float().to(device)
        self.values[self.shared] = self.start
        self.values.requires_grad_()
        self._positions = {n: PackedPositions(mask.indices(n), device) for n in self.layout.names}
        self._earlier = _outside(mask, earlier_values, device)
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
            return _Sum.apply(weight, self._earlier.get(name), self._parts[name], self._positions[name])

        return add_delta

    def position_bytes(self) -> int:
        """Bytes that tell which entries the values belong to."""
        return sum(positions.nbytes() for positions in self._positions.values())


def _outside(mask: NeuronMask, values: Tensor, device: torch.device | str) -> dict[str, Tensor]:
    """What earlier concepts left outside the mask, `(out, text_dim)`, where a projection has any."""
    parts = {}
    for name, shape, where in mask.layout.slices():
        part = values[where].reshape(shape).masked_fill(mask.dense(name), 0)
        if part.any():
            parts[name] = part.to(device)
    return parts


class _Sum(torch.autograd.Function):
    """A weight with earlier and packed values added; only the positions are kept for the gradient."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, earlier: Tensor | None, values: Tensor, positions: PackedPositions
    ) -> Tensor:
        ctx.positions = positions
        if earlier is None:
            summed = weight.clone(memory_format=torch.contiguous_format)
        else:
            summed = (weight + earlier).to(weight.dtype)  # float16 and bfloat16 meet in float32
        flat, where = summed.view(-1), positions.unpacked()
        flat[where] = (flat[where].float() + values).to(flat.dtype)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor, None]:
        return None, None, gradient.reshape(-1)[ctx.positions.unpacked()].float(), None
