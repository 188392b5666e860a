"""What guarded directions prepare: what is protected, and a forecast of the directions that will be found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...evaluation.plots import gain_bars
from ...method import Change, Earlier, Material
from ...projections import ProjectionLayout
from ...protected import Protected, Protection, protect
from .change import DirectionsChange
from .find import Directions, guarded_directions

# Words that mean nothing, in the token's place: what a token is like is not known before it is learned.
_MADE_UP = ("sks", "ohwx", "zwx")
_FORECAST = 8  # directions
# Below this the captions are hardly apart from what is protected, and little can be learned along them.
_CLEAR_GAIN = 10.0


@dataclass(frozen=True, eq=False)
class Forecast:
    """Of a word that means nothing, in the token's place: the mean over some.

    gains: of its first directions, falling; heard: by earlier concepts' tokens, the share of its energy along
    these that their captions hear.
    """

    gains: tuple[float, ...]
    heard: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Guarded:
    """What is protected, and the forecast."""

    protected: Protected
    forecast: Forecast

    @property
    def layout(self) -> ProjectionLayout:
        return self.protected.layout

    def moving(self) -> dict[str, float]:
        return dict.fromkeys(self.protected.layout.names, 1.0)

    def check(self, earlier: Earlier) -> None:
        self.protected.check(earlier)

    def report(self, parameters: int, earlier: Mapping[str, Change]) -> str:
        protected, gains = self.protected, self.forecast.gains
        dims = len(protected.general)
        lines = [
            f"protected: {len(protected.prompts):,} prompts; {protected.quiet()} of {dims} directions of the "
            f"text features are quiet in general prompts, below {protected.settings.floor:g} of the mean",
            f"forecast, with a made-up word as the token: gains {_figures(gains)}",
            *(
                f"`{token}` hears {share:.2%} of what is learned along them"
                for token, share in self.forecast.heard.items()
            ),
        ]
        if not gains or gains[0] < _CLEAR_GAIN:
            lines.append(
                "even a made-up word is hardly apart from what is protected: protect fewer prompts, "
                "or choose another class word"
            )
        return "\n".join(f"- {line}" for line in lines)

    def picture(self, earlier: Mapping[str, Change]) -> Tensor:
        return gain_bars(self.forecast.gains, list(self.forecast.heard.items()))

    def outcome(self, change: Change) -> str:
        if not isinstance(change, DirectionsChange):
            raise TypeError(f"{type(change).__name__} was not learned along directions.")
        gains = change.gains.tolist()
        lines = [f"{len(gains)} directions, gains {_figures(gains)}"]
        if shared := sum(gain < 1 for gain in gains):
            lines.append(
                f"{shared} of them have a gain below 1: what is protected is louder in these than the "
                "concept, and they were moved the less for it"
            )
        lines += self.protected.told(change.answers.float() @ change.directions)
        if not gains or gains[0] < _CLEAR_GAIN:
            lines.append(
                "The token's captions are hardly apart from the class word's. Give it more steps or a "
                "higher token learning rate, or a class word that is farther from what it shows."
            )
        return "\n".join(f"- {line}" for line in lines)


def prepared(material: Material, settings: Protection) -> Guarded:
    """Measure what is protected, and forecast."""
    protected = protect(material, settings)
    taught = material.taught
    groups = [[c.replace(taught.token, word) for c in taught.captions] for word in _MADE_UP]
    moments = material.second_moments(groups, settings.protected_tokens, lasting=0)
    return Guarded(protected, _forecast(moments, protected))


def _forecast(moments: Sequence[Tensor], protected: Protected) -> Forecast:
    total, found = protected.moment(), []
    for moment in moments:
        found.append(guarded_directions(moment, total, _FORECAST, 0.0))
    count = min(len(directions.gains) for directions in found)
    gains = torch.stack([directions.gains[:count] for directions in found]).mean(dim=0)
    heard = {
        token: _mean([_energy_heard(d, moment) for d in found]) for token, moment in protected.earlier.items()
    }
    return Forecast(tuple(gains.tolist()), heard)


def _energy_heard(directions: Directions, moment: Tensor) -> float:
    """The mean energy with which prompts of a moment answer to directions that the concept answers with 1.
    It counts as 1 where they are louder than the concept, as they may be where a gain is below 1.
    """
    vectors = directions.vectors
    energies = (vectors * (moment @ vectors)).sum(dim=0).clamp(0, 1)
    return float(energies.sum()) / max(1, len(energies))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _figures(gains: Sequence[float]) -> str:
    return ", ".join(f"{gain:.3g}" for gain in gains) or "none"
