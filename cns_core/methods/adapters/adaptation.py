"""A concept while an adapter beside each matrix is learned: `W_t = W_{t-1} + alpha/r * product`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...checkpoint import check_alike
from ...method import Earlier, ParameterGroup, WeightFunction
from ..base import AdaptationBase
from .change import AdapterChange
from .forms import Form
from .settings import AdapterTraining


class AdapterAdaptation(AdaptationBase):
    """Only the adapters' parameters move.

    Attributes:
        parameters: float32, by `<matrix>.<parameter>`.
    """

    def __init__(
        self, form: Form, earlier: Earlier, settings: AdapterTraining, device: torch.device | str = "cpu"
    ) -> None:
        self.form, self.layout, self.settings = form, earlier.layout, settings
        self._scale = settings.alpha / settings.rank
        self._earlier = {n: c.to(device) for n, c in earlier.changes().items() if bool(c.any())}
        # Each concept's own, or all would begin along the same directions.
        generator = torch.Generator().manual_seed(len(earlier.taught()))
        self._parts: dict[str, dict[str, Tensor]] = {}
        for name, shape, _ in self.layout.slices():
            started = form.start(shape, settings.rank, generator)
            self._parts[name] = {p: t.to(device).requires_grad_() for p, t in started.items()}
        self.parameters = {f"{n}.{p}": t for n, part in self._parts.items() for p, t in part.items()}

    def parameter_groups(self) -> list[ParameterGroup]:
        rate = self.settings.weight_lr
        return [ParameterGroup(self.form.name, "weight_lr", rate, list(self.parameters.values()))]

    def weight_functions(self) -> dict[str, WeightFunction]:
        return {name: self._weight_function(name) for name in self.layout.names}

    def _weight_function(self, name: str) -> WeightFunction:
        """`f(W) -> W + earlier + scale * up @ down`, the sum itself taken in float32."""

        def add(weight: Tensor) -> Tensor:
            summed = weight.float().reshape(len(weight), -1)
            if (earlier := self._earlier.get(name)) is not None:
                summed = summed + earlier
            up, down = self.form.factors(self._parts[name])
            return torch.addmm(summed, up, down, alpha=self._scale).reshape(weight.shape).to(weight.dtype)

        return add

    def penalties(self) -> dict[str, Tensor]:
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.parameters.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        check_alike(state, self.parameters, "the adapters")
        with torch.no_grad():
            for name, tensor in self.parameters.items():
                tensor.copy_(state[name])

    def learned(self) -> AdapterChange:
        part = {
            name: {
                p: ((self._scale if p == self.form.zero else 1.0) * t.detach().cpu()).half()
                for p, t in parameters.items()
            }
            for name, parameters in self._parts.items()
        }
        return AdapterChange(self.form, self.layout, (part,))
