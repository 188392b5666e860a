"""What adaptations have in common that look at gradients in the first steps, then choose entries, once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..checkpoint import CheckpointError
from ..method import Earlier, Probe, WeightFunction
from ..projections import ProjectionLayout
from .base import AdaptationBase
from .cns.masks import NeuronMask
from .sensitivity import Sensitivity


class Choosing(AdaptationBase):
    """Base of such adaptations. While they look, the weights are as earlier concepts left them.

    Attributes:
        mask: what was chosen; None while there is only looking.
        looking: the gradients so far; None when there is a mask.
    """

    def __init__(
        self, earlier: Earlier, times_weight: bool, first: float, device: torch.device | str
    ) -> None:
        """times_weight: of the gradients; first: the share of the steps that are for looking."""
        self.layout, self._before, self._device = earlier.layout, earlier, torch.device(device)
        self._times_weight, self._first = times_weight, first
        self.mask: NeuronMask | None = None
        self.looking: Sensitivity | None = None
        self._earlier: dict[str, Tensor] = {}
        self._look()

    def _look(self) -> None:
        """Begin to look."""
        self.mask = None
        self.looking = Sensitivity(self.layout, self._times_weight, self._device)
        changes = self._before.changes()
        self._earlier = {n: c.to(self._device) for n, c in changes.items() if bool(c.any())}

    def _choose(self, seen: Sensitivity) -> NeuronMask:
        """Which entries, when all has been seen."""
        raise NotImplementedError

    def _take(self, mask: NeuronMask) -> None:
        """Go on with these entries."""
        self.mask, self.looking = mask, None

    def _seen(self, name: str, weight: Tensor) -> Tensor:
        """The weight while looking."""
        earlier = self._earlier.get(name)
        return weight if earlier is None else (weight + earlier).to(weight.dtype)

    def _chosen(self, name: str, weight: Tensor) -> Tensor:
        """The weight when there is a mask."""
        raise NotImplementedError

    def weight_functions(self) -> dict[str, WeightFunction]:
        return {name: self._weight_function(name) for name in self.layout.names}

    def _weight_function(self, name: str) -> WeightFunction:
        def weight_of(weight: Tensor) -> Tensor:
            if self.looking is None:
                return self._chosen(name, weight)
            return self.looking.watched(name, self._seen(name, weight))

        return weight_of

    def before_step(self, step: int, steps: int, probe: Probe) -> None:
        if self.looking is None:
            return
        self.looking.begin_step()
        if step >= max(1, int(self._first * steps)):
            self._take(self._choose(self.looking))

    def rate_factors(self, step: int, steps: int) -> dict[str, float]:
        """None; but it is asked for when the step's gradients are whole."""
        if self.looking is not None:
            self._noted(self.looking.end_step())
        return {}

    def _noted(self, of_step: Mapping[str, Tensor]) -> None:
        """Called with each step's gradients, by projection."""

    def state_dict(self) -> dict[str, Tensor]:
        if self.looking is not None:
            return self.looking.state_dict()
        assert self.mask is not None
        return {"mask": torch.from_numpy(self.mask.bits.copy())}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        if "mask" in state:
            self._take(self._mask_of(state["mask"]))
            return
        self._look()
        assert self.looking is not None
        self.looking.load_state_dict({n: t for n, t in state.items() if n.startswith("sum.")})

    def _mask_of(self, bits: Tensor) -> NeuronMask:
        try:
            return NeuronMask(self.layout, bits.numpy())
        except ValueError as error:
            raise CheckpointError(f"The checkpoint belongs to another run: {error}") from error


def before_on(mask: NeuronMask, earlier: Earlier) -> Tensor:
    """What there is already on a mask, W_{t-1} - W_0 in flat order, float16 `(mask.count(),)`."""
    changes = earlier.changes()
    return torch.cat([changes[name][mask.dense(name)] for name in mask.layout.names])


def largest(layout: ProjectionLayout, scores: Mapping[str, Tensor], count: int) -> NeuronMask:
    """The entries with the `count` largest scores of all projections; those that are not above 0 are never
    among them.
    """
    flat = torch.cat([scores[name].reshape(-1) for name in layout.names])
    top = torch.topk(flat, min(count, int((flat > 0).sum())), sorted=False).indices
    chosen = np.zeros(layout.total, dtype=bool)
    chosen[top.cpu().numpy()] = True
    return NeuronMask(layout, np.packbits(chosen))
