"""Everything a user can set, checked when it is made: an impossible value never reaches a long run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from .importance import TOKEN_CHOICES

SELECT_BY = ("budget", "top percent")
PRIORS = ("image-free", "drawn class images", "given class images", "none")
LR_SCHEDULES = ("constant", "cosine")


def _in_range(what: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also catches NaN
        raise ValueError(f"{what} is {value:g}; it must lie between {low:g} and {high:g}.")


def _one_of(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{what} is {value!r}; choose one of: {', '.join(choices)}.")


@dataclass(frozen=True)
class SelectionSettings:
    """How concept neurons are selected (Eq. 3-6). Percentages are 0-100; a budget is the share of K/V to end
    with.
    """

    select_by: str = "budget"
    budget_percent: float = 6.5
    top_percent: float = 30.0
    tokens: str = "caption words"
    calibration_prompts: int = 128

    def __post_init__(self) -> None:
        _one_of("select_by", self.select_by, SELECT_BY)
        _one_of("tokens", self.tokens, TOKEN_CHOICES)
        _in_range("budget_percent", self.budget_percent, 0.01, 50)
        _in_range("top_percent", self.top_percent, 0.1, 100)
        _in_range("calibration_prompts", self.calibration_prompts, 1, 128)


@dataclass(frozen=True)
class TrainSettings:
    """How one concept is trained (Eq. 7 and 8).

    Learning rates are Adam's; `keep_earlier` and `keep_base` are lambda of L_reg's two terms (against the
    values the previous concept left, and against the base), each times a sum of squares. `min_snr_gamma` 0
    means unweighted.
    """

    steps: int = 500
    neuron_lr: float = 4e-5
    token_lr: float = 1e-3
    batch_size: int = 1
    gradient_accumulation: int = 1
    seed: int = 0
    prior: str = "image-free"
    prior_weight: float = 1.0
    class_image_count: int = 200
    keep_earlier: float = 0.02
    keep_base: float = 0.002
    lr_schedule: str = "constant"
    warmup_steps: int = 0
    min_snr_gamma: float = 0.0
    masked_loss: bool = False

    def __post_init__(self) -> None:
        _in_range("steps", self.steps, 1, 100_000)
        _in_range("neuron_lr", self.neuron_lr, 0, 1)
        _in_range("token_lr", self.token_lr, 0, 1)
        _in_range("batch_size", self.batch_size, 1, 64)
        _in_range("gradient_accumulation", self.gradient_accumulation, 1, 256)
        _in_range("seed", self.seed, 0, 2**64 - 1)
        _one_of("prior", self.prior, PRIORS)
        _in_range("prior_weight", self.prior_weight, 0, 100)
        _in_range("class_image_count", self.class_image_count, 1, 10_000)
        _in_range("keep_earlier", self.keep_earlier, 0, 1e6)
        _in_range("keep_base", self.keep_base, 0, 1e6)
        _one_of("lr_schedule", self.lr_schedule, LR_SCHEDULES)
        _in_range("warmup_steps", self.warmup_steps, 0, self.steps)
        _in_range("min_snr_gamma", self.min_snr_gamma, 0, 1000)
        if self.neuron_lr == 0 and self.token_lr == 0:
            raise ValueError(
                "Both learning rates are 0, so nothing would be learned; set neuron_lr or token_lr above 0."
            )

    @property
    def uses_prior(self) -> bool:
        return self.prior != "none" and self.prior_weight > 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainSettings:
        """The inverse of `as_dict`; an unknown key is a TypeError."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise TypeError(f"Unknown training settings: {', '.join(unknown)}.")
        return cls(**values)
