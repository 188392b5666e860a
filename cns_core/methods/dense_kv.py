"""All key and value weights move, each concept on top of the one before: what Custom Diffusion (2212.04488)
trains, without its merging. The strongest learner of K/V, and the one that forgets most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checkpoint import check_alike
from ..method import Change, Earlier, Material, ParameterGroup, WeightFunction
from ..projections import ProjectionLayout
from ..settings import check, number
from .base import AdaptationBase, adding
from .shares import AllOf


@dataclass(frozen=True)
class DenseSelection:
    """Nothing is selected."""


@dataclass(frozen=True)
class DenseTraining:
    """How K/V are trained."""

    weight_lr: float = number(1e-5, 0, 1, "Learning rate of the weights.", step=1e-6, digits=9)

    def __post_init__(self) -> None:
        check(self)


class AllOfKv(AllOf):
    """Every entry may move."""

    def report(self, parameters: int, earlier: Mapping[str, Change]) -> str:
        return f"- all {self.layout.total:,} K/V entries: {self.layout.total / parameters:.3%} of the U-Net"


class DenseChange:
    """W - W_0 of every projection `(out, text_dim)`, float16, as the concept left it. ValueError for another
    layout, type or values that are not finite.
    """

    def __init__(self, layout: ProjectionLayout, changes: Mapping[str, Tensor]) -> None:
        seen = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in changes.items()}
        expected = {name: (torch.float16, shape) for name, shape, _ in layout.slices()}
        if wrong := sorted(n for n in {**seen, **expected} if seen.get(n) != expected.get(n)):
            raise ValueError(f"{wrong[0]} is {seen.get(wrong[0])}; expected {expected.get(wrong[0])}.")
        if not all(bool(torch.isfinite(tensor).all()) for tensor in changes.values()):
            raise ValueError("Some of its values are not finite.")
        self.layout, self._changes = layout, dict(changes)

    def tensors(self) -> dict[str, Tensor]:
        return dict(self._changes)

    def lay(self, name: str, on: Tensor) -> Tensor:
        return on.copy_(self._changes[name])

    def added(self, name: str) -> None:
        return None

    def refined(self, by: DenseChange, ruled: Callable[[str], Tensor]) -> DenseChange:
        """All that is there now, others' part in it too."""
        return by

    def moved(self, name: str) -> Tensor:
        return torch.ones(self._changes[name].shape, dtype=torch.bool)

    def summary(self) -> str:
        return f"all {self.layout.total:,} entries of {len(self.layout.names)} matrices"


class DenseAdaptation(AdaptationBase):
    """W_t - W_0 of every projection as a parameter, from what earlier concepts left."""

    def __init__(self, earlier: Earlier, rate: float, device: torch.device | str) -> None:
        """rate: the learning rate of the weights."""
        self._layout, self._rate = earlier.layout, rate
        self.changes = {
            name: change.float().to(device).requires_grad_() for name, change in earlier.changes().items()
        }

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup("weights", "weight_lr", self._rate, list(self.changes.values()))]

    def weight_functions(self) -> dict[str, WeightFunction]:
        return {name: adding(change) for name, change in self.changes.items()}

    def penalties(self) -> dict[str, Tensor]:
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {name: change.detach().cpu().clone() for name, change in self.changes.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        check_alike(state, self.changes, "the weights")
        with torch.no_grad():
            for name, change in self.changes.items():
                change.copy_(state[name])

    def learned(self) -> DenseChange:
        return DenseChange(self._layout, {n: t.half() for n, t in self.state_dict().items()})


class DenseKv:
    """All of K/V."""

    name = "all K/V"
    prior = "image-free"
    Selection = DenseSelection
    Training = DenseTraining

    def prepare(self, material: Material, settings: DenseSelection) -> AllOfKv:
        return AllOfKv(material.layout)

    def start(
        self, prepared: AllOfKv, earlier: Earlier, settings: DenseTraining, device: torch.device
    ) -> DenseAdaptation:
        return DenseAdaptation(earlier, settings.weight_lr, device)

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Change:
        return DenseChange(layout, tensors)
