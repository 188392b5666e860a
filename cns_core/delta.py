"""Packed values on frozen weights: `W_t = W_0 + delta`, delta zero outside what concepts have learned.

Only one flat float32 vector, the entries of the concept being learned, is a parameter. What earlier concepts
left outside those entries is a constant, so nothing else can move.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .masks import NeuronMask


class PackedDelta:
    """The delta during training.

    mask: the entries being learned (M_con of this concept). earlier_mask, earlier_values: the union of what
    earlier concepts learned and its values float32 `(earlier_mask.count(),)`, relative to W_0. Call
    `update()` after `values` changed and before the next forward; the weight functions then read one
    scattered vector.
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
        touched = mask | earlier_mask
        flat = touched.flat_indices()
        self._constant = torch.zeros(
            touched.count(), device=device
        )  # what earlier concepts left, 0 where we learn
        position = torch.searchsorted(flat, earlier_mask.flat_indices())
        self._constant[position.to(device)] = earlier_values.float().to(device)
        learned = torch.searchsorted(flat, mask.flat_indices())
        self._learned = learned.to(device)
        self.start = self._constant[self._learned].clone()  # W_{t-1} - W_0 on the mask
        self._constant[self._learned] = 0
        shared = torch.searchsorted(mask.flat_indices(), (mask & earlier_mask).flat_indices())
        self.shared = shared.to(device)  # M_reg: positions in `values` that an earlier concept moved (Eq. 7)
        self.values = self.start.clone().requires_grad_()
        self._indices: dict[str, Tensor] = {}
        self._places: dict[str, slice] = {}
        begin = 0
        for name in self.layout.names:
            where = touched.indices(name)
            self._indices[name] = where.to(device=device, dtype=torch.int32)
            self._places[name] = slice(begin, begin + len(where))
            begin += len(where)
        self._scattered = self._constant
        self.update()

    def update(self) -> None:
        """Scatter `values` among the constants, once per step; differentiable in `values`."""
        self._scattered = self._constant.index_add(0, self._learned, self.values)

    def weight_function(self, name: str) -> Callable[[Tensor], Tensor]:
        """`f(W) -> W + delta` for one projection, out of place, in W's dtype; the sum itself is taken in
        float32.
        """
        if name not in self._indices:
            raise ValueError(f"No projection {name!r} in this delta.")

        def add_delta(weight: Tensor) -> Tensor:
            if not self.enabled:
                return weight
            indices, values = self._indices[name], self._scattered[self._places[name]]
            return (
                weight.float()
                .reshape(-1)
                .index_add(0, indices, values)
                .reshape(weight.shape)
                .to(weight.dtype)
            )

        return add_delta
