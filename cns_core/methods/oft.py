"""Orthogonal fine-tuning (2306.07280): each matrix is turned, `W' = R W`, and never stretched.

R is block-diagonal, and each block orthogonal by Cayley's transform of a skew matrix Q,
`R = (I + Q)(I - Q)^-1`, so the angles between neurons stay as they were. The constrained form (COFT) keeps
each Q short.

With butterfly factors (BOFT, 2311.06243) `R = R_m ... R_1`, where each block of R_i takes rows from twice as
far apart as one of the factor before, so that few small blocks mix all rows.

A turned matrix cannot be had from Q without the untouched one, which a memory's file has not; what is kept is
the difference of every entry, in float16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checkpoint import check_alike
from ..method import Change, Earlier, Material, ParameterGroup, WeightFunction
from ..projections import ProjectionLayout
from ..settings import check, choice, number, whole
from ..weight_scopes import ATTENTION, CROSS_ATTENTION, KEYS_AND_VALUES
from .base import AdaptationBase
from .dense_kv import DenseChange
from .shares import AllOf


@dataclass(frozen=True)
class OftSelection:
    """Which matrices are turned."""

    weights: str = choice(
        CROSS_ATTENTION,
        (KEYS_AND_VALUES, CROSS_ATTENTION, ATTENTION),
        "Which weights of the U-Net learn. Paper: attention.",
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class OftTraining:
    """How far and how fast."""

    blocks: int = whole(4, 1, 64, "Into how many blocks the rows of a matrix are cut. Paper: 4.")
    weight_lr: float = number(6e-5, 0, 1, "Learning rate of the weights. Paper: 6e-5.", step=1e-5, digits=9)
    constraint: float = number(
        0.0,
        0,
        1e3,
        "How long each block's Q may become, as a multiple of its number of rows; 0 for any length. Paper: "
        "1e-4 to 6e-5, of its constrained form.",
        step=1e-5,
        digits=9,
    )

    factors: int = whole(
        1,
        1,
        8,
        "How many rotations one after another, each of rows from farther apart. 1: OFT; more: BOFT, as many "
        "as the blocks allow.",
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Turned(AllOf):
    """weights: the untouched matrices, float32 on the CPU."""

    weights: Mapping[str, Tensor]

    def report(self, parameters: int, earlier: Mapping[str, Change]) -> str:
        return (
            f"- {len(self.layout.names)} matrices are turned: {self.layout.total / parameters:.2%} of the "
            f"U-Net; each concept takes {2 * self.layout.total / 1e6:,.0f} MB in the memory's file"
        )


class OftAdaptation(AdaptationBase):
    """The rotation of each matrix, on top of what earlier concepts left.

    Attributes:
        turns: what makes Q, float32 `(factors, blocks, rows, rows)`, of each matrix.
    """

    def __init__(
        self, prepared: Turned, earlier: Earlier, settings: OftTraining, device: torch.device | str = "cpu"
    ) -> None:
        self.layout, self.settings, self._weights = earlier.layout, settings, prepared.weights
        self._earlier = earlier.changes()
        self._on_device = {n: c.to(device) for n, c in self._earlier.items() if bool(c.any())}
        self.turns: dict[str, Tensor] = {}
        for name, (rows, _), _ in self.layout.slices():
            blocks = next(n for n in range(min(settings.blocks, rows), 0, -1) if rows % n == 0)
            side = rows // blocks
            factors = next(n for n in range(settings.factors, 0, -1) if n == 1 or _spread(rows, side, n - 1))
            self.turns[name] = torch.zeros(factors, blocks, side, side, device=device, requires_grad=True)

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup("turns", "weight_lr", self.settings.weight_lr, list(self.turns.values()))]

    def weight_functions(self) -> dict[str, WeightFunction]:
        return {name: self._weight_function(name) for name in self.layout.names}

    def _weight_function(self, name: str) -> WeightFunction:
        """`f(W) -> R (W + earlier)`, in float32."""

        def turn(weight: Tensor) -> Tensor:
            earlier = self._on_device.get(name)
            before = weight.float() if earlier is None else weight.float() + earlier
            return self._turned(name, before).to(weight.dtype)

        return turn

    def _turned(self, name: str, weight: Tensor) -> Tensor:
        free = self.turns[name]
        skew = (free - free.transpose(2, 3)) / 2
        if self.settings.constraint:
            longest = self.settings.constraint * free.shape[2]
            length = skew.flatten(2).norm(dim=2).clamp(min=1e-12)
            skew = skew * (longest / length).clamp(max=1)[..., None, None]
        one = torch.eye(free.shape[2], device=free.device)
        # R - I = 2 Q (I - Q)^-1: where nothing is turned, nothing is rounded.
        changes = 2 * torch.linalg.solve(one - skew, skew, left=False)
        turned, side = weight.reshape(len(weight), -1), free.shape[2]
        for factor, change in enumerate(changes):
            moved = torch.bmm(change, _cut(turned, side, factor))
            turned = turned + _put_together(moved, side, factor)
        return turned.reshape(weight.shape)

    def penalties(self) -> dict[str, Tensor]:
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {name: turn.detach().cpu().clone() for name, turn in self.turns.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        check_alike(state, self.turns, "the rotations")
        with torch.no_grad():
            for name, turn in self.turns.items():
                turn.copy_(state[name])

    @torch.no_grad()
    def learned(self) -> DenseChange:
        changes = {}
        for name, before in self._earlier.items():
            weight = self._weights[name].to(self.turns[name].device)
            turned = self._turned(name, weight + before.to(weight.device))
            changes[name] = (turned - weight).half().cpu()
        return DenseChange(self.layout, changes)


def _spread(rows: int, side: int, factor: int) -> bool:
    """Whether a factor's blocks of `side` rows can be taken from farther apart than the factor's before."""
    return side % 2 == 0 and rows % (side << factor) == 0


def _cut(matrix: Tensor, side: int, factor: int) -> Tensor:
    """`(rows, columns)` as the blocks of a factor `(blocks, side, columns)`: of the first factor as they lie,
    then with each half of a block from a stretch of its own, twice as far apart with every factor.
    """
    if factor:
        matrix = matrix.reshape(-1, 2, side // 2 << factor, matrix.shape[-1]).transpose(1, 2)
    return matrix.reshape(-1, side, matrix.shape[-1])


def _put_together(blocks: Tensor, side: int, factor: int) -> Tensor:
    """`(rows, columns)` from what `_cut` has made of it."""
    if factor:
        blocks = blocks.reshape(-1, side // 2 << factor, 2, blocks.shape[-1]).transpose(1, 2)
    return blocks.reshape(-1, blocks.shape[-1])


class Oft:
    """Orthogonal fine-tuning."""

    name = "oft"
    prior = "image-free"
    Selection = OftSelection
    Training = OftTraining

    def prepare(self, material: Material, settings: OftSelection) -> Turned:
        layout = material.weights_in(settings.weights)
        return Turned(layout, {name: weight.cpu() for name, weight in material.weights(layout).items()})

    def start(
        self, prepared: Turned, earlier: Earlier, settings: OftTraining, device: torch.device
    ) -> OftAdaptation:
        return OftAdaptation(prepared, earlier, settings, device)

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Change:
        return DenseChange(layout, tensors)
