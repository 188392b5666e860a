"""A concept while it is learned by Perfusion: the edit follows the token, and its values are learned."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...checkpoint import check_alike
from ...method import Earlier, ParameterGroup, Probe, Taught, WeightFunction
from ..base import AdaptationBase
from .change import PerfusionChange
from .metric import answer_direction
from .places import Places, places_of
from .settings import PerfusionTraining


class PerfusionAdaptation(AdaptationBase):
    """`W_t = W_{t-1} + up g`, where g answers to i* with 1, and up = o* - W_{t-1} i*:

        of keys    W_0 (c* - i*) - (W_{t-1} - W_0) i*      o* = W_0 c*: locked to the class word's key
        of values  W_{t-1} (i_0 - i*) + answers            o* = W_{t-1} i_0 + answers: learned

    with c* the class word's features where the token stands, i* the token's, smoothed over the steps, and i_0
    those at the start, all of them means over captions.

    Attributes:
        answers: float32, of the rows of all values beneath each other.
        target: i* `(text_dim,)` float64, None before the first step.
    """

    def __init__(
        self,
        taught: Taught,
        inverse: Tensor,
        earlier: Earlier,
        settings: PerfusionTraining,
        device: torch.device | str = "cpu",
    ) -> None:
        """inverse: C^-1 `(text_dim, text_dim)` float64, see `metric.inverse_metric`."""
        self.layout, self.settings = earlier.layout, settings
        self._taught, self._inverse, self._device = taught, inverse, torch.device(device)
        self._earlier = {n: c.to(device) for n, c in earlier.changes().items() if bool(c.any())}
        theirs = [c.targets for c in earlier.left().values() if isinstance(c, PerfusionChange)]
        self._theirs = torch.cat(theirs).double() if theirs else torch.zeros(0, len(inverse)).double()
        self._rows, rows = {}, 0
        for name, shape, _ in self.layout.slices():
            if not _is_key(name):
                self._rows[name] = slice(rows, rows + shape[0])
                rows += shape[0]
        self.answers = torch.zeros(rows, device=device, requires_grad=True)
        self.target: Tensor | None = None
        self._before = self._first = torch.zeros_like(inverse[0])  # i* before the step, and i_0
        self._step = -1  # that i* was last brought up to
        self._class: Tensor | None = None  # c*
        self._places: Places | None = None
        self._down = torch.zeros(0)  # g, float32 on the device
        self._given: dict[str, Tensor] = {}  # by projection, what of up is not learned

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup("values", "weight_lr", self.settings.weight_lr, [self.answers])]

    def weight_functions(self) -> dict[str, WeightFunction]:
        return {name: self._weight_function(name) for name in self.layout.names}

    def _weight_function(self, name: str) -> WeightFunction:
        def edit(weight: Tensor) -> Tensor:
            earlier = self._earlier.get(name)
            if earlier is None and self.target is None:
                return weight
            summed = weight.float() if earlier is None else weight.float() + earlier
            if self.target is not None:
                if name not in self._given:
                    self._given[name] = self._not_learned(name, weight.detach().float())
                summed = torch.addr(summed, self._up(name), self._down)
            return summed.to(weight.dtype)

        return edit

    def _up(self, name: str) -> Tensor:
        """o* - W_{t-1} i* `(out,)`."""
        rows = self._rows.get(name)
        return self._given[name] if rows is None else self._given[name] + self.answers[rows]

    def _not_learned(self, name: str, weight: Tensor) -> Tensor:
        """up `(out,)` float32 without the answers; weight: W_0 `(out, text_dim)`."""
        if self.target is None or self._class is None:
            raise RuntimeError("There is no place to edit yet: before_step comes first.")
        instead = self._class if _is_key(name) else self._first
        found = weight @ self._on_device(instead - self.target)
        if name in self._earlier:
            kept = -self.target if _is_key(name) else self._first - self.target
            found = found + self._earlier[name].float() @ self._on_device(kept)
        return found

    def before_step(self, step: int, steps: int, probe: Probe) -> None:
        """Let i* follow the token. Called again for a step that was broken off, it gives the same."""
        if self._places is None or self._class is None:
            self._places, of_class = places_of(self._taught, probe)
            self._class = of_class.reading(probe)
        if self.target is None:
            self._before = self._first = self._places.reading(probe)
        elif step != self._step:
            self._before = self.target
        self._step = step
        now = self._places.of_step(step).reading(probe)
        self._aim(torch.lerp(now, self._before, self.settings.smoothing))

    def _aim(self, target: Tensor) -> None:
        self.target, self._given = target, {}
        self._down = self._on_device(answer_direction(target, self._theirs, self._inverse))

    def _on_device(self, vector: Tensor) -> Tensor:
        return vector.to(self._device, torch.float32)

    def penalties(self) -> dict[str, Tensor]:
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        state = {"answers": self.answers.detach().cpu().clone()}
        if self.target is not None:
            state |= {"target": self.target, "before": self._before, "first": self._first}
            given = [self._given.get(n, torch.zeros(out)).cpu() for n, (out, _), _ in self.layout.slices()]
            state |= {"given": torch.cat(given), "step": torch.tensor([self._step])}
        return {name: tensor.clone() for name, tensor in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        outs = [out for out, _ in self.layout.shapes]
        expected = {"answers": self.answers}
        if len(state) > 1:  # there is a place to edit
            expected |= dict.fromkeys(("target", "before", "first"), self._before)
            expected |= {"given": torch.zeros(sum(outs)), "step": torch.tensor([0])}
        check_alike(state, expected, "the values")
        with torch.no_grad():
            self.answers.copy_(state["answers"])
        self.target, self._given = None, {}
        if "target" in state:
            self._before, self._first, self._step = state["before"], state["first"], int(state["step"])
            self._aim(state["target"])
            self._given = dict(
                zip(self.layout.names, state["given"].to(self._device).split(outs), strict=True)
            )

    def learned(self) -> PerfusionChange:
        with torch.no_grad():
            ups = [
                self._up(n).cpu() if n in self._given else torch.zeros(out)
                for n, (out, _), _ in self.layout.slices()
            ]
        down = self._down.cpu() if self.target is not None else torch.zeros(len(self._before))
        target = self._before if self.target is None else self.target
        return PerfusionChange(
            self.layout, torch.cat(ups)[:, None].half(), down[None, None], target.float()[None]
        )


def _is_key(name: str) -> bool:
    return name.endswith("to_k")
