"""The weights of a run at three stages: as they are being learned, as earlier concepts left them, untouched.

Priors ask what the model predicted at another stage. What switches stands here, around the weight functions
of whatever method there is, so that no method has to know of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum

from torch import Tensor

from .method import Factored, WeightFunction


class Stage(Enum):
    """Whose weights they are."""

    NOW = "as they are being learned"
    BEFORE = "as earlier concepts left them"
    UNTOUCHED = "of the model as it was loaded"


class StagedWeights:
    """Weight functions, and a switch for all of them.

    Args:
        now: what a method makes of each weight.
        before: W_{t-1} - W_0 of each weight that earlier concepts moved, on the device of training. Without
            it BEFORE is UNTOUCHED.
    """

    def __init__(self, now: Mapping[str, WeightFunction], before: Mapping[str, Tensor]) -> None:
        self._now, self._before, self.stage = now, before, Stage.NOW

    def functions(self) -> dict[str, WeightFunction]:
        """Each weight at the stage that is shown. What was `Factored` stays so."""
        return {
            name: self._of(name, self._now.get(name, _as_it_is)) for name in {**self._now, **self._before}
        }

    @contextmanager
    def shown(self, stage: Stage) -> Iterator[None]:
        """The weights of a stage, while it is open."""
        shown_before, self.stage = self.stage, stage
        try:
            yield
        finally:
            self.stage = shown_before

    def other(self, name: str, weight: Tensor) -> Tensor:
        """A weight at a stage that is not NOW."""
        change = self._before.get(name) if self.stage is Stage.BEFORE else None
        return weight if change is None else (weight.float() + change.view_as(weight)).to(weight.dtype)

    def _of(self, name: str, now: WeightFunction) -> WeightFunction:
        if isinstance(now, Factored):
            return _StagedProduct(self, name, now, name in self._before)
        return self.switching(name, now)

    def switching(self, name: str, now: WeightFunction) -> WeightFunction:
        """`f(W)` of NOW, or the weight of another stage."""

        def weight_of(weight: Tensor) -> Tensor:
            return now(weight) if self.stage is Stage.NOW else self.other(name, weight)

        return weight_of


class _StagedProduct:
    """A `Factored` function that has nothing to add at other stages than NOW."""

    def __init__(self, staged: StagedWeights, name: str, now: Factored, moved_before: bool) -> None:
        self._staged, self._now = staged, now
        self._whole = staged.switching(name, now)
        kept = _as_it_is if now.rest is None else now.rest
        self.rest: WeightFunction | None = None
        if now.rest is not None or moved_before:
            self.rest = staged.switching(name, kept)

    def __call__(self, weight: Tensor) -> Tensor:
        return self._whole(weight)

    def products(self) -> Sequence[tuple[Tensor, Tensor]]:
        return self._now.products() if self._staged.stage is Stage.NOW else ()


def _as_it_is(weight: Tensor) -> Tensor:
    return weight
