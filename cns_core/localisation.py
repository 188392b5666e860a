"""Where a learned concept lives: the error of predicting the noise in its own pictures, while what it has
left in the U-Net is there in one attention layer alone, and in all but that one ('Ready, Aim, Edit').

Figures are shares of the way from the token alone (0) to all that was learned (1), at noise that is always
the same, so that nothing has to be drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .laid import Laid
from .memory import ConceptMemory
from .method import WeightFunction
from .noised import NoisedPictures
from .places import Place
from .settings import check, switch, whole
from .within import within

ALL, KEYS, VALUES = "all", "keys", "values"
EVERYWHERE = "everywhere"


@dataclass(frozen=True)
class LocateSettings:
    """How exactly it is measured."""

    samples: int = whole(
        32,
        4,
        1024,
        "Pairs of picture and noise that each figure is a mean of. Four times as many halve what is "
        "uncertain in it, and take four times as long.",
    )
    keys_and_values: bool = switch(
        False, "Measure keys and values of each layer apart as well, which takes three times as long."
    )
    seed: int = whole(0, 0, 2**63 - 1, "Of the noise.", rare=True)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Share:
    """Of a concept, 1 being all that was learned besides the token.

    only: what is there with these weights and no others; lost: what goes when these alone are taken out;
    doubt: the larger standard error of the two.
    """

    only: float
    lost: float
    doubt: float


@dataclass(frozen=True)
class Localisation:
    """Where a concept lives.

    class_word, token_alone, whole: the mean squared error under the class word with the concept taken out,
        with its token alone, and with all that was learned.
    shares: by place and part of it, ALL, KEYS or VALUES; in the order of the U-Net.
    """

    token: str
    class_word: float
    token_alone: float
    whole: float
    shares: Mapping[str, Mapping[str, Share]]

    def by_the_token(self) -> float:
        """The share of the way from the class word to the concept that the token goes alone."""
        return (self.class_word - self.token_alone) / (self.class_word - self.whole)

    def doubt(self) -> float:
        """The largest standard error of a share."""
        return max(share.doubt for of_place in self.shares.values() for share in of_place.values())


class Switched:
    """A memory's weights, with what one concept has left in some of them; in the others it is taken out.

    here: the names of those where it is there.
    """

    def __init__(self, memory: ConceptMemory, token: str, device: torch.device) -> None:
        self.names = memory.concept(token).change.layout.names
        self.here: frozenset[str] = frozenset()
        laid, without = memory.laid(), memory.laid({token: 0.0})
        self._functions = {n: self._function(n, laid[n].to(device), without[n].to(device)) for n in laid}

    def weight_functions(self) -> dict[str, WeightFunction]:
        """They go by `here` at each call."""
        return self._functions

    def _function(self, name: str, with_it: Laid, without: Laid) -> WeightFunction:
        def changed(weight: Tensor) -> Tensor:
            laid = with_it if name in self.here else without
            if laid.is_nothing():
                return weight
            return (weight.float() + laid.in_full().view_as(weight)).to(weight.dtype)

        return changed


def restricted(memory: ConceptMemory, token: str, names: Collection[str]) -> ConceptMemory:
    """The memory, to draw with, where one of its concepts has left nothing outside these weights."""
    concept = memory.concept(token)
    part = replace(concept, change=within(concept.change, concept.change.layout.only(names)))
    return replace(memory, concepts=tuple(part if c is concept else c for c in memory.concepts))


def localise(
    pictures: NoisedPictures,
    token: str,
    switched: Switched,
    places: Sequence[Place],
    keys_and_values: bool,
    on_progress: Callable[[int, int], None],
) -> Localisation:
    """Measure each place. The backend of the pictures has to use `switched.weight_functions()`.

    Args:
        token: of the concept that is switched.
        keys_and_values: also apart, and for all places together.
        on_progress: told of predictions done, of how many; may raise to stop.

    Raises:
        ValueError: what was learned in the weights does not lower the error.
    """
    wanted = _parts(places, keys_and_values)
    everything, nothing = frozenset(switched.names), frozenset[str]()
    parts = {names for of_place in wanted.values() for names in of_place.values()}
    variants = sorted(parts | {everything - part for part in parts} | {everything, nothing}, key=sorted)
    total, done = (len(variants) + 1) * len(pictures), 0

    def errors(here: frozenset[str], class_word: bool = False) -> Tensor:
        nonlocal done
        switched.here, found = here, []
        for error in pictures.errors(class_word):
            done += 1
            on_progress(done, total)
            found.append(error)
        return torch.cat(found)

    of_class_word = errors(nothing, class_word=True)
    measured = {names: errors(names) for names in variants}
    alone, full = measured[nothing], measured[everything]
    gain = alone - full
    if float(gain.mean()) <= 0:
        raise ValueError(
            f"There is nothing of {token} to be found in the U-Net: the error on these pictures is "
            f"{float(full.mean()):.5f} with all that was learned, and {float(alone.mean()):.5f} with the "
            "token alone. Connect the pictures that it was learned from, or take more samples."
        )
    shares = {
        label: {
            part: _share(alone - measured[names], measured[everything - names] - full, gain)
            for part, names in of_place.items()
        }
        for label, of_place in wanted.items()
    }
    return Localisation(token, float(of_class_word.mean()), float(alone.mean()), float(full.mean()), shares)


def _parts(places: Sequence[Place], keys_and_values: bool) -> dict[str, dict[str, frozenset[str]]]:
    """By place and part of it, the weights."""
    if not keys_and_values:
        return {place.label: {ALL: frozenset(place.names)} for place in places}
    together = Place(EVERYWHERE, tuple(name for place in places for name in place.names))
    return {
        place.label: {
            ALL: frozenset(place.names),
            KEYS: frozenset(place.keys),
            VALUES: frozenset(place.values),
        }
        for place in (*places, together)
    }


def _share(only: Tensor, lost: Tensor, gain: Tensor) -> Share:
    """Ratios of means `(n,)` over the same samples."""
    mean = gain.mean()

    def ratio(part: Tensor) -> tuple[float, float]:
        """And its standard error."""
        figure = float(part.mean() / mean)
        return figure, float((part - figure * gain).std() / len(gain) ** 0.5 / mean)

    (here, doubt), (without, other_doubt) = ratio(only), ratio(lost)
    return Share(here, without, max(doubt, other_doubt))
