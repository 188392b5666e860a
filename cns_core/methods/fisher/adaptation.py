"""Concept neurons while they are learned, and how much each of them matters to what is learned.

The diagonal of the Fisher information is the mean over the steps of the squared gradient of the loss,
without L_reg's own. Squares of such gradients lie below what float16 can hold, so they are kept in units
of their mean: `keep_earlier` then means the same with them as without.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from ...method import Earlier, Probe
from ..choosing import before_on
from ..cns.adaptation import CnsAdaptation
from ..cns.masks import NeuronMask
from ..cns.settings import CnsTraining
from .change import FisherChange, importance


class FisherAdaptation(CnsAdaptation):
    """The neurons of one concept.

    Attributes:
        squares: float32 `(mask.count(),)`, the sum of squared gradients of the steps so far.
    """

    def __init__(
        self, mask: NeuronMask, earlier: Earlier, settings: CnsTraining, device: torch.device | str = "cpu"
    ) -> None:
        self._of_step: dict[str, Tensor] = {}
        super().__init__(mask, earlier, settings, device)
        with torch.no_grad():  # what a concept that is learned further has left itself is no other's
            self.values.copy_(before_on(mask, earlier))
        self.before_forward()
        self.squares = torch.zeros(mask.count(), device=device)
        before = importance(earlier)
        mattered = torch.cat([before[name][mask.dense(name)] for name in mask.layout.names])
        self._weights = mattered.to(device)[self.shared]

    def before_step(self, step: int, steps: int, probe: Probe) -> None:
        self._of_step = {}  # of a step that was stopped in between

    def before_forward(self) -> None:
        """Split `values` by projection, and note the gradient that comes back to each part, not L_reg's."""
        super().before_forward()
        for name, part in self._parts.items():
            if part.requires_grad:
                part.register_hook(partial(self._note, name))

    def _note(self, name: str, gradient: Tensor) -> None:
        before = self._of_step.get(name)
        self._of_step[name] = gradient if before is None else before + gradient

    def rate_factors(self, step: int, steps: int) -> dict[str, float]:
        """None; but it is asked for when the step's gradients are whole."""
        of_step, self._of_step = self._of_step, {}
        for name, squares in zip(
            self._parts, self.squares.split([len(p) for p in self._parts.values()]), strict=True
        ):
            if name in of_step:
                squares += of_step[name].square()
        return {}

    def penalties(self) -> dict[str, Tensor]:
        """L_reg: `keep_earlier sum F (W_t - W_{t-1})^2 + keep_base ||M_con (W_t - W_0)||^2`."""
        loss = self.values.new_zeros(())
        if self.settings.keep_earlier and len(self.shared):
            moved = self.values[self.shared] - self.start
            loss = loss + self.settings.keep_earlier * (self._weights * moved.square()).sum()
        if self.settings.keep_base:
            loss = loss + self.settings.keep_base * self.values.square().sum()
        return {"L_reg": loss}

    def state_dict(self) -> dict[str, Tensor]:
        return {**super().state_dict(), "squares": self.squares.cpu().clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        super().load_state_dict(state)
        self.squares.copy_(state["squares"])

    def learned(self) -> FisherChange:
        mean = self.squares.mean()
        fisher = self.squares / mean if mean > 0 else torch.ones_like(self.squares)  # nothing was seen
        most = torch.finfo(torch.float16).max
        return FisherChange(self.mask, self.values.detach().cpu().half(), fisher.clamp(max=most).cpu().half())
