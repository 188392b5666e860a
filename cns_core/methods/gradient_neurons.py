"""Entries of K/V by their gradient, where CNS goes by what they read (Eq. 3): those that the concept's
loss asks to move.

    S[i,j] = |W[i,j] * dL/dW[i,j]|  (GCNS, 2605.19750)     or     S[i,j] = |dL/dW[i,j]|  (SalUn, 2310.12508)

with L summed over the first steps, in which the token learns alone; after them the largest of all
projections are trained as CNS trains its own. SalUn takes the larger half of all weights, for forgetting;
here a budget is chosen, as for CNS. L is all that is minimised, so that of a later concept the prior has
its say as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checkpoint import CheckpointError, check_alike
from ..method import Change, Earlier, Material, ParameterGroup
from ..projections import ProjectionLayout
from ..settings import check, choice, number
from .choosing import Choosing, before_on, largest
from .chosen_later import ChosenLater, budget, entries_of
from .cns.adaptation import CnsAdaptation
from .cns.change import CnsChange
from .cns.masks import NeuronMask
from .cns.settings import CnsTraining
from .sensitivity import Sensitivity

TIMES_WEIGHT, GRADIENT = "weight x gradient", "gradient"


@dataclass(frozen=True)
class GradientSelection:
    """How many entries, and by which score."""

    budget_percent: float = budget(6.5, "That of CNS; SalUn: 50, of all weights.")
    gradient_score: str = choice(
        TIMES_WEIGHT,
        (TIMES_WEIGHT, GRADIENT),
        "What makes an entry important. weight x gradient: GCNS's; gradient: SalUn's.",
        rare=True,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class GradientTraining(CnsTraining):
    """How long gradients are summed, and how the entries are trained (Eq. 7)."""

    score_first: float = number(
        0.1,
        0.0,
        0.9,
        "Share of the steps in which gradients are summed and the token learns alone; at least one step.",
        step=0.05,
        rare=True,
    )


@dataclass(frozen=True)
class ByGradient(ChosenLater):
    """times_weight: of the score."""

    times_weight: bool


class GradientAdaptation(Choosing):
    """Looks, chooses, and is CNS's adaptation from then on.

    Attributes:
        values: float32 `(count,)`, W_t - W_0 of the chosen entries, in flat order; 0 until there are any.
    """

    def __init__(
        self,
        prepared: ByGradient,
        earlier: Earlier,
        settings: GradientTraining,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings, self._count = settings, prepared.count
        self.values = torch.zeros(prepared.count, device=device, requires_grad=True)
        self._cns: CnsAdaptation | None = None
        super().__init__(earlier, prepared.times_weight, settings.score_first, device)

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup("neurons", "neuron_lr", self.settings.neuron_lr, [self.values])]

    def _look(self) -> None:
        super()._look()
        self._cns = None
        with torch.no_grad():
            self.values.zero_()

    def _choose(self, seen: Sensitivity) -> NeuronMask:
        mask = largest(self.layout, {name: total.abs() for name, total in seen.sums.items()}, self._count)
        if mask.count() < self._count:
            raise ValueError(
                f"Only {mask.count():,} entries had a gradient in the first steps, expected {self._count:,}. "
                "Lower the budget percent, or raise score first."
            )
        return mask

    def _take(self, mask: NeuronMask) -> None:
        super()._take(mask)
        self._earlier = {}
        self._cns = CnsAdaptation(mask, self._before, self.settings, self._device)
        with torch.no_grad():
            self.values.copy_(before_on(mask, self._before))
        self._cns.values = self.values  # those that the optimizer moves
        self._cns.before_forward()
        self._functions = self._cns.weight_functions()

    def _chosen(self, name: str, weight: Tensor) -> Tensor:
        return self._functions[name](weight)

    def before_forward(self) -> None:
        if self._cns is not None:
            self._cns.before_forward()

    def penalties(self) -> dict[str, Tensor]:
        return {"L_reg": self.values.new_zeros(())} if self._cns is None else self._cns.penalties()

    def state_dict(self) -> dict[str, Tensor]:
        state = super().state_dict()
        return state if self._cns is None else {**state, **self._cns.state_dict()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        if "mask" in state:
            check_alike(state, {"mask": state["mask"], "values": self.values}, "the neurons")
            if (count := self._mask_of(state["mask"]).count()) != self._count:
                raise CheckpointError(
                    f"The checkpoint belongs to another run: it has {count:,} entries, expected "
                    f"{self._count:,}."
                )
        super().load_state_dict(state)
        if "mask" in state:
            with torch.no_grad():
                self.values.copy_(state["values"])

    def learned(self) -> CnsChange:
        """Nothing of the weights while there was only looking."""
        if self._cns is None:
            return CnsChange(NeuronMask.empty(self.layout), torch.zeros(0, dtype=torch.float16))
        return self._cns.learned()


class GradientNeurons:
    """The entries with the largest gradients."""

    name = "gradient neurons"
    prior = "image-free"
    Selection = GradientSelection
    Training = GradientTraining

    def prepare(self, material: Material, settings: GradientSelection) -> ByGradient:
        why = f"those of the largest {settings.gradient_score} in the first steps of training"
        count = entries_of(material.layout, settings.budget_percent)
        return ByGradient(material.layout, count, why, settings.gradient_score == TIMES_WEIGHT)

    def start(
        self, prepared: ByGradient, earlier: Earlier, settings: GradientTraining, device: torch.device
    ) -> GradientAdaptation:
        return GradientAdaptation(prepared, earlier, settings, device)

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Change:
        return CnsChange.read(layout, tensors)
