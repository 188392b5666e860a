"""DreamBooth's reach as an adaptation of the pack's loop: every weight matrix of the U-Net moves."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from cns_core.method import Change, ParameterGroup, WeightFunction
from cns_core.methods.base import AdaptationBase


class WholeUNet(AdaptationBase):
    """All weights (not the biases) as float32 parameters; for measuring, so nothing of it is kept."""

    def __init__(self, unet: nn.Module, rate: float = 5e-6) -> None:
        self._rate = rate
        self._weights = {
            name.removesuffix(".weight"): parameter.detach().float().clone().requires_grad_()
            for name, parameter in unet.named_parameters()
            if name.endswith(".weight")
        }

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup("weights", "weight_lr", self._rate, list(self._weights.values()))]

    def weight_functions(self) -> dict[str, WeightFunction]:
        def in_place_of(learned: Tensor) -> WeightFunction:
            return lambda weight: learned.to(weight.dtype)

        return {name: in_place_of(learned) for name, learned in self._weights.items()}

    def penalties(self) -> dict[str, Tensor]:
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        raise NotImplementedError("Measured runs are not resumed.")

    def learned(self) -> Change:
        raise NotImplementedError("What is measured here is not kept.")
