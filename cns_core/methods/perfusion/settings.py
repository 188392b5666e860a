"""What can be set of Perfusion."""

from __future__ import annotations

from dataclasses import dataclass

from ...protected import AUTOMATIC_ON_CPU, AUTOMATIC_ON_GPU
from ...settings import check, number, whole


@dataclass(frozen=True)
class PerfusionSelection:
    """What the metric of text features is measured on."""

    general_prompts: int = whole(
        0,
        0,
        65_536,
        f"How many general prompts tell how text features vary. 0: {AUTOMATIC_ON_GPU:,} on a GPU, "
        f"{AUTOMATIC_ON_CPU:,} on a CPU. The paper takes 100,000 captions.",
        rare=True,
    )
    floor: float = number(
        1e-3,
        1e-6,
        1,
        "How much every direction of text features counts, even one that no general prompt uses: a share of "
        "their mean. The paper has none, and needs none with its 100,000 captions.",
        step=1e-4,
        digits=9,
        rare=True,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class PerfusionTraining:
    """How a concept's values are learned."""

    weight_lr: float = number(
        0.03,
        0,
        10,
        "Learning rate of the values that the token is given; 0.03 in the paper, with 0.006 for the token.",
        step=1e-3,
        digits=9,
    )
    smoothing: float = number(
        0.96,
        0,
        0.999,
        "How slowly the edit follows what the token reads as: the share that stays at each step. 0.96 is the "
        "paper's 0.99 for each of the four batches of a step.",
        step=0.01,
        rare=True,
    )

    def __post_init__(self) -> None:
        check(self)
