"""What can be set of learning along guarded directions; `protected.Protection` says what is protected."""

from __future__ import annotations

from dataclasses import dataclass

from ...settings import check, choice, number, whole

KEYS, VALUES, BOTH = "keys", "values", "keys and values"


@dataclass(frozen=True)
class DirectionsTraining:
    """How a concept is learned along its directions."""

    direction_lr: float = number(
        0.02,
        0,
        10,
        "More likeness against everything else as it was: the learning rate of what keys and values answer "
        "along the directions. On the small base, after four concepts, other prompts move by 1.3 % at 0.02 "
        "and by 2.6 % at 0.03, which learns 1 % more.",
        step=1e-3,
        digits=9,
    )
    directions: int = whole(12, 1, 64, "How many directions at most.", rare=True)
    least_gain: float = number(
        0.5,
        0,
        1e6,
        "Directions are taken while the concept's captions are this many times as strong in them as all that "
        "is protected.",
        step=0.5,
        rare=True,
    )
    guard: float = number(
        0.1,
        0,
        1e6,
        "How hard the answers are held where something protected would hear them.",
        step=0.01,
        digits=9,
        rare=True,
    )
    token_first: float = number(
        0.3,
        0,
        0.95,
        "The share of the steps in which the token learns alone. The directions are found after it.",
        step=0.05,
        rare=True,
    )
    token_after: float = number(
        1.0,
        0,
        1,
        "The token's learning rate afterwards, as a share of what it was; both fall to 0 by half a cosine.",
        step=0.05,
        rare=True,
    )
    moves: str = choice(BOTH, (BOTH, KEYS, VALUES), "Which projections learn.", rare=True)

    def __post_init__(self) -> None:
        check(self)
