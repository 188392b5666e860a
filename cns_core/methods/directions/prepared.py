"""What guarded directions prepare: what is protected, and a forecast of the directions that will be found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...evaluation.plots import gain_bars
from ...method import Change, Earlier, Material
from ...protected import Protected, Protection, protect
from .change import DirectionsChange
from .find import Directions, guarded_directions

# Words that mean nothing, in the token's place: what a token is like is not known before it is learned.
_MADE_UP = ("sks", "ohwx", "zwx")
_FORECAST = 8  # directions
# Below this the captions are hardly apart from what is protected, and little can be learned along them.
CLEAR_GAIN = 10.0


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

    def digest(self) -> str:
        return self.protected.digest()

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
        if not gains or gains[0] < CLEAR_GAIN:
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
        effects = self.protected.effects(change.answers.float() @ change.directions)
        lines = [f"{len(gains)} directions, gains {_figures(gains)}"]
        lines += [f"keys and values of {name} move by {share:.2%}" for name, share in effects.items()]
        if not gains or gains[0] < CLEAR_GAIN:
            lines.append(
                "**The token's captions are hardly apart from the class word's.** Give it more steps or a "
                "higher token_lr, or a class word that is farther from what it shows."
            )
        suffers = [name for name, share in effects.items() if share > _SUFFERS]
        if suffers:
            lines.append(
                f"**{', '.join(suffers)} will look a little different.** Raise least_gain or guard to keep "
                "more of it as it was; the concept gets less likeness for it."
            )
        return "\n".join(f"- {line}" for line in lines)


_SUFFERS = 0.05  # of keys and values, root mean square


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
    """The mean energy with which prompts of a moment answer to directions that the concept answers with 1."""
    vectors = directions.vectors
    return float((vectors * (moment @ vectors)).sum()) / max(1, len(directions.gains))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _figures(gains: Sequence[float]) -> str:
    return ", ".join(f"{gain:.3g}" for gain in gains) or "none"
