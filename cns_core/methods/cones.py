"""Cones (2303.05125): a concept is drawn when few entries of K/V are shut off, set to zero.

An entry whose shrinking lowers the concept's loss has `W * dL/dW > 0`. Over the first steps the gradients
are summed while the weights move along, a little:

    M += W * dL/dW        W -= rho W * (W * dL/dW)

and the entries whose sum is largest are zero from then on. Masks of several concepts are united, by laying
them on each other.

The paper's threshold on M was not published, so a budget stands in its place. Its token is a rare one that
never learns; here it learns along, as the token of any method, before and after the entries are chosen.
The paper keeps indices alone; a concept here has to be laid without the model at hand, so the former
values W_0 are kept with them, in float16: of a model in float16 what is laid is zero, of one in float32
nearly (1/2000 of each entry).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checkpoint import CheckpointError, check_alike
from ..method import Change, Earlier, Material, ParameterGroup
from ..projections import ProjectionLayout
from ..settings import check, number
from .choosing import Choosing, largest
from .chosen_later import ChosenLater, budget, entries_of
from .cns.change import CnsChange
from .cns.masks import NeuronMask
from .sensitivity import Sensitivity


@dataclass(frozen=True)
class ConesSelection:
    """How many entries are shut off."""

    budget_percent: float = budget(1.0, "Too many destroy every picture. Paper: by a threshold.")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ConesTraining:
    """How they are found."""

    find_first: float = number(
        0.5,
        0.0,
        0.95,
        "Share of the steps in which entries are looked for; then they are zero, and the token alone goes "
        "on. At least one step. Paper: all of 1,000 steps.",
        step=0.05,
    )
    weight_lr: float = number(
        2e-5,
        0,
        1,
        "How far the weights move along while entries are looked for. The paper's rho; it names no number.",
        step=1e-6,
        digits=9,
        rare=True,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ToShutOff(ChosenLater):
    """weights: the untouched matrices, float32 on the CPU."""

    weights: Mapping[str, Tensor]


class ConesChange(CnsChange):
    """W - W_0 = -W_0 on a mask."""

    def refined(self, by: CnsChange, ruled: Callable[[str], Tensor]) -> ConesChange:
        both = super().refined(by, ruled)
        return ConesChange(both.mask, both.values)

    def summary(self) -> str:
        return f"{self.mask.count():,} entries shut off"


class ConesAdaptation(Choosing):
    """Looks while the weights move along, then shuts entries off.

    Attributes:
        scales: W over what earlier concepts left of it, float32 `(out, text_dim)`, by projection; empty when
            entries have been chosen.
    """

    def __init__(
        self,
        prepared: ToShutOff,
        earlier: Earlier,
        settings: ConesTraining,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings, self._prepared = settings, prepared
        self.scales: dict[str, Tensor] = {}
        self._off: dict[str, Tensor] = {}
        super().__init__(earlier, True, settings.find_first, device)

    def parameter_groups(self) -> list[ParameterGroup]:
        return []

    def _look(self) -> None:
        super()._look()
        self._off = {}
        self.scales = {n: torch.ones(shape, device=self._device) for n, shape, _ in self.layout.slices()}

    def _choose(self, seen: Sensitivity) -> NeuronMask:
        return largest(self.layout, seen.sums, self._prepared.count)

    def _take(self, mask: NeuronMask) -> None:
        super()._take(mask)
        self.scales = {}
        self._off = {name: mask.dense(name).to(self._device) for name in self.layout.names}

    def _seen(self, name: str, weight: Tensor) -> Tensor:
        return (super()._seen(name, weight.float()) * self.scales[name]).to(weight.dtype)

    def _chosen(self, name: str, weight: Tensor) -> Tensor:
        return super()._seen(name, weight).masked_fill(self._off[name], 0)

    def _noted(self, of_step: Mapping[str, Tensor]) -> None:
        for name, found in of_step.items():
            self.scales[name] *= 1 - self.settings.weight_lr * found

    def penalties(self) -> dict[str, Tensor]:
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        scales = {f"scale.{name}": scale.cpu().clone() for name, scale in self.scales.items()}
        return {**super().state_dict(), **scales}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        if "mask" in state:
            check_alike(state, {"mask": state["mask"]}, "the entries")
            if (count := self._mask_of(state["mask"]).count()) > self._prepared.count:
                raise CheckpointError(
                    f"The checkpoint belongs to another run: it has {count:,} entries, expected at most "
                    f"{self._prepared.count:,}."
                )
        else:
            scales = {f"scale.{name}": torch.empty(shape) for name, shape, _ in self.layout.slices()}
            check_alike({n: t for n, t in state.items() if not n.startswith("sum.")}, scales, "the scales")
        super().load_state_dict(state)
        for name, scale in self.scales.items():
            scale.copy_(state[f"scale.{name}"])

    def learned(self) -> ConesChange:
        """Nothing of the weights while there was only looking."""
        mask = NeuronMask.empty(self.layout) if self.mask is None else self.mask
        parts = [-self._prepared.weights[name][mask.dense(name)] for name in self.layout.names]
        return ConesChange(mask, torch.cat(parts).half())


class Cones:
    """Entries that a concept shuts off."""

    name = "cones"
    prior = "image-free"
    Selection = ConesSelection
    Training = ConesTraining

    def prepare(self, material: Material, settings: ConesSelection) -> ToShutOff:
        count = entries_of(material.layout, settings.budget_percent)
        weights = {name: weight.cpu() for name, weight in material.weights().items()}
        return ToShutOff(material.layout, count, "those whose shrinking helps most are shut off", weights)

    def start(
        self, prepared: ToShutOff, earlier: Earlier, settings: ConesTraining, device: torch.device
    ) -> ConesAdaptation:
        return ConesAdaptation(prepared, earlier, settings, device)

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Change:
        return ConesChange.read(layout, tensors)
