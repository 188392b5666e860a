"""A concept while it is learned along guarded directions.

The token learns alone first: it goes most of the way, and only then is known what its captions' features are.
Then the directions U are found, once, and the answers A `(rows, r)` start from zero. A is what the optimizer
moves, and not the weights, so nothing outside the directions can change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from ...checkpoint import check_alike
from ...method import TOKEN, Earlier, ParameterGroup, Probe, WeightFunction
from ...moments import second_moment
from ...protected import Protected
from ...text_features import counted_tokens
from ..base import AdaptationBase, OnEarlier, left_before
from .change import DirectionsChange
from .find import Directions, guarded_directions
from .settings import BOTH, KEYS, DirectionsTraining

_GROUP = "directions"


class DirectionsAdaptation(AdaptationBase):
    """`W_t = W_{t-1} + A U^T`.

    Attributes:
        answers: A in units of each projection's size (`Protected.sizes`), so that one learning rate fits
            every model, and of the root of each direction's gain as a share of the first; float32
            `(rows, directions)`, of the projections that learn, beneath each other.
            Columns for which there is no direction stay zero.
        found: the directions, None while the token learns alone.
    """

    def __init__(
        self,
        protected: Protected,
        earlier: Earlier,
        settings: DirectionsTraining,
        device: torch.device | str = "cpu",
    ) -> None:
        self.protected, self.settings, self.layout = protected, settings, protected.layout
        self._device = torch.device(device)
        self._before = left_before(earlier, device)
        self._learning = [n for n in self.layout.names if _learns(n, settings.moves)]
        self._rows = [self.layout.shape(name)[0] for name in self._learning]
        self.answers = torch.zeros(sum(self._rows), settings.directions, device=device, requires_grad=True)
        counts = torch.tensor(self._rows)
        sizes = torch.tensor([protected.sizes[name] for name in self._learning])
        self._units = sizes.repeat_interleave(counts)[:, None].to(device)
        # A projection counts the same however many rows it has.
        self._shares = (1 / (counts * len(counts))).repeat_interleave(counts)[:, None].to(device)
        self.found: Directions | None = None
        self._down = torch.zeros(0)  # U^T on the device, with a row for each column of A
        self._scale = self._units  # of the answers, once there are directions
        self._cost = 0.0  # of a unit of any answer: what protected prompts hear of it
        self._parts: dict[str, Tensor] = {}

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup(_GROUP, "direction_lr", self.settings.direction_lr, [self.answers])]

    def weight_functions(self) -> dict[str, WeightFunction]:
        names = {**self._before, **dict.fromkeys(self._learning)}
        return {name: OnEarlier(self._before.get(name), partial(self.factors, name)) for name in names}

    def factors(self, name: str) -> tuple[Tensor, Tensor] | None:
        """A `(rows, directions)` and U^T of a projection, as they stand; None while they move nothing."""
        if name not in self._parts:
            return None
        return self._parts[name], self._down

    def before_step(self, step: int, steps: int, probe: Probe) -> None:
        """Find the directions, when the token has had its share of the steps."""
        if self.found is not None or step < self._alone(steps):
            return
        features = probe.caption_features()
        counted = self.protected.settings.protected_tokens
        own = second_moment(
            (
                counted_tokens(x, words, counted)
                for x, words in zip(features.cross.cpu(), features.is_word.cpu(), strict=True)
            ),
            self.layout.shapes[0][1],
        )
        s = self.settings
        self._take(guarded_directions(own, self.protected.moment(), s.directions, s.least_gain))

    def _take(self, found: Directions) -> None:
        self.found = found
        count = self.answers.shape[1] - len(found.gains)
        down = torch.nn.functional.pad(found.vectors.T.float(), (0, 0, 0, count))
        # Adam moves every column as far. So scaled, what is protected hears no more of one whose gain is low.
        loudness = (found.gains / found.gains[:1]).sqrt()
        loudness = torch.nn.functional.pad(loudness, (0, count)).to(self._device, torch.float32)
        self._down = down.to(self._device)
        self._scale = self._units * loudness
        self._cost = 1 / float(found.gains[0]) if len(found.gains) else 0.0

    def rate_factors(self, step: int, steps: int) -> dict[str, float]:
        alone = self._alone(steps)
        if step < alone:
            return {}
        falling = 0.5 * (1 + math.cos(math.pi * (step - alone) / (steps - alone)))
        return {_GROUP: falling, TOKEN: falling * self.settings.token_after}

    def _alone(self, steps: int) -> int:
        return int(self.settings.token_first * steps)

    def before_forward(self) -> None:
        """Split A by projection; differentiable in A."""
        if self.found is not None and len(self.found.gains):
            parts = (self._scale * self.answers).split(self._rows)
            self._parts = dict(zip(self._learning, parts, strict=True))

    def penalties(self) -> dict[str, Tensor]:
        """The mean over projections of guard tr(D P D^T) / (rows size^2), with D = A U^T."""
        if self.found is None:
            return {"guard": self.answers.new_zeros(())}
        return {"guard": self.settings.guard * self._cost * (self.answers.square() * self._shares).sum()}

    def state_dict(self) -> dict[str, Tensor]:
        state = {"answers": self.answers.detach().cpu().clone()}
        if self.found is not None:
            state |= {"vectors": self.found.vectors.clone(), "gains": self.found.gains.clone()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        expected = {"answers": self.answers}
        if len(state) > 1:  # directions have been found; how many is for them to say
            count = min(state.get("gains", torch.empty(0)).numel(), self.answers.shape[1])
            wide = self.layout.shapes[0][1]
            expected["vectors"] = torch.empty(wide, count, dtype=torch.float64)
            expected["gains"] = torch.empty(count, dtype=torch.float64)
        check_alike(state, expected, "the directions")
        with torch.no_grad():
            self.answers.copy_(state["answers"])
        self.found, self._parts = None, {}
        if "vectors" in state:
            self._take(Directions(state["vectors"], state["gains"]))

    def learned(self) -> DirectionsChange:
        found = self.found or Directions(torch.zeros(self.layout.shapes[0][1], 0), torch.zeros(0))
        return DirectionsChange(
            self.layout,
            self._all_answers()[:, : len(found.gains)].half().contiguous(),
            found.vectors.T.float().contiguous(),
            found.gains.float(),
        )

    def _all_answers(self) -> Tensor:
        """A `(rows, directions)` on the CPU, with rows of zeros for projections that do not learn."""
        answers = (self._scale * self.answers.detach()).cpu()
        parts = dict(zip(self._learning, answers.split(self._rows), strict=True))
        width = self.answers.shape[1]
        return torch.cat(
            [
                parts.get(n, torch.zeros(out, width))
                for n, (out, _) in zip(self.layout.names, self.layout.shapes, strict=True)
            ]
        )


def _learns(name: str, moves: str) -> bool:
    return moves == BOTH or name.endswith("to_k") == (moves == KEYS)
