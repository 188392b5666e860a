"""What can be set of adapters."""

from __future__ import annotations

from dataclasses import dataclass

from ...settings import check, choice, number, whole
from ...weight_scopes import ATTENTION, EVERYTHING, SCOPES


@dataclass(frozen=True)
class AdapterSelection:
    """Beside which matrices there is an adapter."""

    weights: str = choice(
        ATTENTION,
        tuple(scope for scope in SCOPES if scope != EVERYTHING),
        "Which weights of the U-Net learn.",
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class AdapterTraining:
    """How adapters are trained."""

    rank: int = whole(4, 1, 256, "Rank of each adapter: how much it can learn. Paper: 4.")
    alpha: float = number(
        4.0, 0.01, 1024, "What an adapter adds is multiplied by alpha / rank. Paper: the rank.", step=1.0
    )
    weight_lr: float = number(1e-4, 0, 1, "Learning rate of the weights. Paper: 1e-4.", step=1e-5, digits=9)

    def __post_init__(self) -> None:
        check(self)
