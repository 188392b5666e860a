"""What can be set of Concept Neuron Selection."""

from __future__ import annotations

from dataclasses import dataclass

from ...captions import CALIBRATION_COUNT
from ...settings import check, choice, number, whole
from ...text_features import TOKEN_CHOICES
from .scores import SCORES

BUDGET, TOP_PERCENT = "budget", "top percent"


@dataclass(frozen=True)
class CnsSelection:
    """How concept neurons are selected (Eq. 3-6)."""

    select_by: str = choice(
        BUDGET,
        (BUDGET, TOP_PERCENT),
        "budget: choose how much of K/V may be trained; top percent: choose the percent per row yourself.",
    )
    budget_percent: float = number(
        6.5,
        0.01,
        50,
        "Percent of all K/V entries to end with. More learns harder and disturbs more.",
        step=0.1,
    )
    top_percent: float = number(
        30.0,
        0.1,
        100,
        "For 'top percent': the share of each row that counts as important for one caption.",
        step=1.0,
    )
    tokens: str = choice(
        "caption words", TOKEN_CHOICES, "Which tokens of a caption enter the score.", rare=True
    )
    calibration_prompts: int = whole(
        CALIBRATION_COUNT,
        1,
        CALIBRATION_COUNT,
        "How many general prompts say what matters for images in general.",
        rare=True,
    )
    score: str = choice(
        next(iter(SCORES)),
        tuple(SCORES),
        "What makes an entry important for a caption. contrastive: for the concept, and not for the rest of "
        "its captions.",
        rare=True,
    )
    general_share: float = number(
        1.0,
        0.01,
        1,
        "General neurons are those that at least this share of the general prompts selects. Paper: all of "
        "them; that of the contrastive score: 0.6.",
        step=0.05,
        rare=True,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class CnsTraining:
    """How the selected neurons are trained (Eq. 7): the two lambdas are each times a sum of squares."""

    neuron_lr: float = number(
        4e-5,
        0,
        1,
        "Learning rate of the neurons. Too low: little likeness. "
        "Too high: artefacts, or the loss becomes NaN.",
        step=1e-6,
        digits=9,
    )
    keep_earlier: float = number(
        0.02,
        0,
        1e6,
        "L_reg, first term: how hard neurons shared with earlier concepts are held to their values.",
        step=1e-4,
        digits=9,
        rare=True,
    )
    keep_base: float = number(
        0.002,
        0,
        1e6,
        "L_reg, second term: how hard the trained neurons are held to the base model. "
        "Lower it when a concept stays weak.",
        step=1e-4,
        digits=9,
        rare=True,
    )

    def __post_init__(self) -> None:
        check(self)
