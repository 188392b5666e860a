"""Textual Inversion (2208.01618): the new token's vectors alone are learned, and no weight moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checkpoint import check_alike
from ..method import Change, Earlier, Material, ParameterGroup, WeightFunction
from ..projections import ProjectionLayout
from .base import AdaptationBase, OnEarlier, left_before
from .shares import Shares


@dataclass(frozen=True)
class TokenSettings:
    """The loop owns the token: there is nothing to set."""


@dataclass(frozen=True)
class NoWeights(Shares):
    """No entry may move."""

    layout: ProjectionLayout

    def moving(self) -> dict[str, float]:
        return dict.fromkeys(self.layout.names, 0.0)

    def overlap(self, change: Change) -> float:
        return 0.0

    def report(self, parameters: int, earlier: Mapping[str, Change]) -> str:
        return "- the token's vectors alone: no weight moves"


@dataclass(frozen=True)
class NoChange:
    """What earlier concepts left stays as it is."""

    layout: ProjectionLayout

    def lay(self, name: str, on: Tensor) -> Tensor:
        return on

    def added(self, name: str) -> tuple[Tensor, Tensor]:
        out, width = self.layout.shape(name)
        return torch.zeros(out, 0), torch.zeros(0, width)

    def refined(self, by: NoChange, ruled: Callable[[str], Tensor]) -> NoChange:
        """Nothing again."""
        return by

    def moved(self, name: str) -> Tensor:
        return torch.zeros(self.layout.shape(name), dtype=torch.bool)

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def summary(self) -> str:
        return "its token alone"


class TokenAdaptation(AdaptationBase):
    """The weights as earlier concepts left them."""

    def __init__(self, earlier: Earlier, device: torch.device | str) -> None:
        self._layout = earlier.layout
        self._before = left_before(earlier, device)

    def parameter_groups(self) -> list[ParameterGroup]:
        return []

    def weight_functions(self) -> dict[str, WeightFunction]:
        return {name: OnEarlier(laid) for name, laid in self._before.items()}

    def penalties(self) -> dict[str, Tensor]:
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        check_alike(state, {}, "the weights")

    def learned(self) -> NoChange:
        return NoChange(self._layout)


class TokenOnly:
    """The token alone."""

    name = "token alone"
    prior = "none"
    Selection = TokenSettings
    Training = TokenSettings

    def prepare(self, material: Material, settings: TokenSettings) -> NoWeights:
        return NoWeights(material.layout)

    def start(
        self, prepared: NoWeights, earlier: Earlier, settings: TokenSettings, device: torch.device
    ) -> TokenAdaptation:
        return TokenAdaptation(earlier, device)

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> NoChange:
        if tensors:
            raise ValueError(f"It has the tensors {sorted(tensors)}; of the token alone there are none.")
        return NoChange(layout)
