"""What can be set of a space, of a sample and of an edit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..settings import check, number, whole


def _components(default: int) -> Any:
    help = "Principal components that count, at most, the largest first. 0: all, one fewer than concepts."
    return whole(default, 0, 1023, help)


@dataclass(frozen=True)
class SpaceSettings:
    """Of whatever is made out of a space."""

    components: int = _components(0)
    rank: int = whole(
        16,
        1,
        1024,
        "Rank in each matrix of what is made. More keeps more of it, in a larger file.",
        rare=True,
    )
    token_share: float = number(
        0.5,
        0,
        1,
        "How much tokens weigh against weights, each measured by how far the concepts lie apart in it. "
        "Paper: 0, it has no tokens.",
        step=0.05,
        rare=True,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class SampleSettings(SpaceSettings):
    """Of a new concept."""

    # Of 39 components one in nine new faces was a face; of these 8, seven in ten (docs/concept_space.md).
    components: int = _components(8)
    seed: int = whole(0, 0, 2**64 - 1, "The same seed gives the same concept.")
    distance: float = number(
        1.0,
        0,
        10,
        "How far from the mean, in what the space's own concepts are: 0 is the mean itself, 1 is about as "
        "unusual as they are. Paper: 1.",
        step=0.1,
        digits=6,
    )


@dataclass(frozen=True)
class EditSettings(SpaceSettings):
    """Of a concept that is moved."""

    strength: float = number(
        1.0,
        -10,
        10,
        "How far to go: 1 is the way from the mean of one list to the mean of the other, 0 leaves the "
        "concept as it is, below 0 goes the other way.",
        step=0.1,
        digits=6,
    )
