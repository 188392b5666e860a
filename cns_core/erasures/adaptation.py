"""The weights while something is being erased by training: a difference to what was there before, and what
holds it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checkpoint import check_alike
from ..method import ParameterGroup, WeightFunction
from ..methods.base import AdaptationBase, adding
from ..methods.cns.masks import NeuronMask
from ..projections import ProjectionLayout
from .difference import Difference, MaskedDifference


@dataclass(frozen=True, eq=False)
class Guard:
    """weight * sum tr(D P D^T) / sum tr(W P W^T) over the projections: the squared share by which keys and
    values of what is kept move, which read text features and nothing else.

    moment: P `(d, d)` float32, the sum of second moments; untouched: sum tr(W P W^T); layout: of K/V.
    """

    weight: float
    moment: Tensor
    untouched: float
    layout: ProjectionLayout

    def of(self, differences: Mapping[str, Tensor]) -> Tensor:
        """Of D by name; what is no key or value is left out."""
        own = [d for name, d in differences.items() if name in self.layout]
        heard = [((d @ self.moment) * d).sum() for d in own]
        return self.weight / self.untouched * sum(heard, start=self.moment.new_zeros(()))


@dataclass(frozen=True, eq=False)
class Elastic:
    """weight * sum F D^2 / ||W||^2, elastic weight consolidation (1612.00796).

    fisher: F by name, float32 `(out, text_dim)`, in units of its mean over all entries; size: ||W||^2 of all
    weights, so that with F = 1 it is the squared share by which the weights move.
    """

    weight: float
    fisher: dict[str, Tensor]
    size: float

    @classmethod
    def of_squares(cls, weight: float, squares: Mapping[str, Tensor], size: float) -> Elastic:
        """squares: the mean squared gradients. ValueError where there were none."""
        mean = float(torch.cat([s.reshape(-1) for s in squares.values()]).mean())
        if not mean > 0:
            raise ValueError("No weight had a gradient on what is kept. Raise the look steps.")
        return cls(weight, {name: s / mean for name, s in squares.items()}, size)

    def of(self, differences: Mapping[str, Tensor]) -> Tensor:
        held = [(self.fisher[name] * d.square()).sum() for name, d in differences.items()]
        return self.weight / self.size * torch.stack(held).sum()


class ErasingAdaptation(AdaptationBase):
    """Differences to the weights as the memory left them, from zero.

    Args:
        masks: bool `(out, text_dim)` by name, the entries that may move; None for all.

    Attributes:
        differences: the parameters, float32 `(out, text_dim)` by name.
    """

    def __init__(
        self,
        layout: ProjectionLayout,
        rate: float,
        device: torch.device | str,
        guard: Guard | None = None,
        masks: NeuronMask | None = None,
        elastic: Elastic | None = None,
    ) -> None:
        self.layout, self._rate, self._guard, self._elastic = layout, rate, guard, elastic
        self.differences = {
            name: torch.zeros(shape, device=device, requires_grad=True) for name, shape, _ in layout.slices()
        }
        self._masks = None if masks is None else {n: masks.dense(n).to(device) for n in layout.names}

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup("weights", "weight_lr", self._rate, list(self.differences.values()))]

    def weight_functions(self) -> dict[str, WeightFunction]:
        return {name: self._with_difference(name) for name in self.layout.names}

    def _with_difference(self, name: str) -> WeightFunction:
        def weight_of(weight: Tensor) -> Tensor:
            return adding(self._moved(name))(weight)

        return weight_of

    def _moved(self, name: str) -> Tensor:
        difference = self.differences[name]
        return difference if self._masks is None else difference * self._masks[name]

    def penalties(self) -> dict[str, Tensor]:
        moved = {name: self._moved(name) for name in self.layout.names}
        found = {}
        if self._guard is not None:
            found["kept"] = self._guard.of(moved)
        if self._elastic is not None:
            found["elastic"] = self._elastic.of(moved)
        return found

    def state_dict(self) -> dict[str, Tensor]:
        """What was found before training too: a GPU need not find the same again."""
        state = {f"difference.{n}": d.detach().cpu().clone() for n, d in self.differences.items()}
        if self._masks is not None:
            state |= {f"mask.{n}": mask.cpu().clone() for n, mask in self._masks.items()}
        if self._elastic is not None:
            state |= {f"fisher.{n}": f.cpu().clone() for n, f in self._elastic.fisher.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        check_alike(state, self.state_dict(), "the weights")
        with torch.no_grad():
            for kind, tensors in (
                ("difference", self.differences),
                ("mask", self._masks or {}),
                ("fisher", {} if self._elastic is None else self._elastic.fisher),
            ):
                for name, tensor in tensors.items():
                    tensor.copy_(state[f"{kind}.{name}"])

    def learned(self) -> Difference | MaskedDifference:
        found = {n: self._moved(n).detach().cpu().half() for n in self.layout.names}
        if self._masks is None:
            return Difference(self.layout, found)
        masks = {name: mask.cpu() for name, mask in self._masks.items()}
        values = torch.cat([found[name][masks[name]] for name in self.layout.names])
        return MaskedDifference(NeuronMask.from_dense(self.layout, masks), values)
