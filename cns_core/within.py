"""What was learned, seen from another set of weights than it was learned on.

Most methods move keys and values alone; some move more of the U-Net. One memory may hold both kinds, so each
has to be told apart from what it knows nothing of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .laid import Laid
from .method import (
    Adaptation,
    Change,
    Earlier,
    Method,
    ParameterGroup,
    Prepared,
    Probe,
    Taught,
    WeightFunction,
)
from .methods.base import adding
from .projections import ProjectionLayout
from .summed import Summed


def is_sum(change: Change) -> bool:
    """Whether a change is added to whatever is there, rather than taking its place."""
    names = change.layout.names
    return isinstance(change, Summed) or not names or change.added(names[0]) is not None


def within(change: Change, layout: ProjectionLayout) -> Change:
    """A change as one of these weights: it leaves alone those that it was not learned on."""
    return change if change.layout == layout else _Within(change, layout)


@dataclass(frozen=True, eq=False)
class _Within:
    change: Change
    layout: ProjectionLayout

    def _known(self, name: str) -> bool:
        return name in self.change.layout

    def lay(self, name: str, on: Tensor) -> Tensor:
        return self.change.lay(name, on) if self._known(name) else on

    def added(self, name: str) -> tuple[Tensor, Tensor] | None:
        if self._known(name):
            return self.change.added(name)
        out, width = self.layout.shape(name)
        return torch.zeros(out, 0), torch.zeros(0, width)

    def moved(self, name: str) -> Tensor:
        return self.change.moved(name) if self._known(name) else torch.zeros(self.layout.shape(name)).bool()

    def refined(self, by: Any, ruled: Callable[[str], Tensor]) -> Change:
        return self.change.refined(by, ruled)

    def tensors(self) -> dict[str, Tensor]:
        return self.change.tensors()

    def summary(self) -> str:
        return self.change.summary()


@dataclass(eq=False)
class EarlierWithin:
    """What was learned before, as far as it lies in these weights (`method.Earlier`)."""

    earlier: Earlier
    layout: ProjectionLayout

    @cached_property
    def _all(self) -> Mapping[str, Laid]:
        return self.earlier.laid()

    def taught(self) -> tuple[Taught, ...]:
        return self.earlier.taught()

    def changes(self) -> dict[str, Tensor]:
        return {name: laid.summed() for name, laid in self.laid().items()}

    def laid(self) -> dict[str, Laid]:
        return {
            name: self._all[name] if name in self._all else Laid.nothing(*shape)
            for name, shape, _ in self.layout.slices()
        }

    def elsewhere(self) -> dict[str, Tensor]:
        """What changes there are besides, as `changes`."""
        besides = {n: laid for n, laid in self._all.items() if n not in self.layout}
        return {n: laid.summed() for n, laid in besides.items() if not laid.is_nothing()}

    def left(self) -> dict[str, Change]:
        return {token: within(change, self.layout) for token, change in self.earlier.left().items()}

    def moved(self, name: str) -> Tensor:
        known = name in self._all
        return self.earlier.moved(name) if known else torch.zeros(self.layout.shape(name)).bool()


def start(
    method: Method, prepared: Prepared, earlier: Earlier, settings: Any, device: torch.device
) -> Adaptation:
    """Begin to learn a concept by a method, on top of all that was learned before, wherever that lies."""
    inside = EarlierWithin(earlier, prepared.layout)
    adaptation = method.start(prepared, inside, settings, device)
    elsewhere = {name: change.to(device) for name, change in inside.elsewhere().items()}
    return _BesideOthers(adaptation, elsewhere) if elsewhere else adaptation


class _BesideOthers:
    """An adaptation, with what earlier concepts left in weights that it does not know."""

    def __init__(self, adaptation: Adaptation, elsewhere: Mapping[str, Tensor]) -> None:
        self._adaptation, self._elsewhere = adaptation, dict(elsewhere)

    def weight_functions(self) -> dict[str, WeightFunction]:
        others = {name: adding(change) for name, change in self._elsewhere.items()}
        return {**others, **self._adaptation.weight_functions()}

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        return self._adaptation.parameter_groups()

    def before_step(self, step: int, steps: int, probe: Probe) -> None:
        self._adaptation.before_step(step, steps, probe)

    def rate_factors(self, step: int, steps: int) -> Mapping[str, float]:
        return self._adaptation.rate_factors(step, steps)

    def before_forward(self) -> None:
        self._adaptation.before_forward()

    def penalties(self) -> Mapping[str, Tensor]:
        return self._adaptation.penalties()

    def state_dict(self) -> dict[str, Tensor]:
        return self._adaptation.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._adaptation.load_state_dict(state)

    def learned(self) -> Change:
        return self._adaptation.learned()
