"""Everything a user can set, stated once: default, range, choices and explanation stand in the field.

The nodes make their sockets of these fields, and `check` holds values against them, so that an impossible one
never reaches a long run.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .priors import PRIORS, Prior
from .tokens import MAX_LEARNED

LR_SCHEDULES = ("constant", "cosine")

_DESCRIBED = "setting"
_WORDS = {
    "lr": "learning rate",
    "gb": "gigabytes",
    "i": "I",
    "t": "T",
    "clip": "CLIP",
    "vae": "VAE",
    "snr": "SNR",
    "cfg": "CFG",
    "csv": "CSV",
}


@dataclass(frozen=True)
class Described:
    """What is known of one setting.

    low, high: the range of a number, both included; step: of the arrows beside it; digits: decimals that a
    number keeps, None for all. choices: of a text. rare: seldom changed, so that it may be folded away.
    """

    help: str
    low: float | None = None
    high: float | None = None
    step: float | None = None
    digits: int | None = None
    choices: tuple[str, ...] = ()
    rare: bool = False


def whole(default: int, low: int, high: int, help: str, *, rare: bool = False) -> Any:
    """A field for a whole number."""
    return field(default=default, metadata={_DESCRIBED: Described(help, low, high, rare=rare)})


def number(
    default: float,
    low: float,
    high: float,
    help: str,
    *,
    step: float,
    digits: int | None = None,
    rare: bool = False,
) -> Any:
    """A field for a number."""
    described = Described(help, low, high, step, digits, rare=rare)
    return field(default=default, metadata={_DESCRIBED: described})


def choice(default: str, choices: tuple[str, ...], help: str, *, rare: bool = False) -> Any:
    """A field for one of several texts."""
    return field(default=default, metadata={_DESCRIBED: Described(help, choices=choices, rare=rare)})


def text(default: str, help: str, *, rare: bool = False) -> Any:
    """A field for any text, of one or more lines."""
    return field(default=default, metadata={_DESCRIBED: Described(help, rare=rare)})


def switch(default: bool, help: str, *, rare: bool = False) -> Any:
    """A field for yes or no."""
    return field(default=default, metadata={_DESCRIBED: Described(help, rare=rare)})


def described(settings: type[Any]) -> dict[str, tuple[Any, Described]]:
    """The settings of a class by name, each with its default."""
    return {f.name: (f.default, f.metadata[_DESCRIBED]) for f in fields(settings)}


def from_kept(settings: type[Any], kept: Any) -> Any:
    """An instance of a class of settings from what a memory's file keeps of it; defaults for what is not
    there. ValueError for a value of another kind, or out of its range.
    """
    values = kept if isinstance(kept, dict) else {}
    chosen = {}
    for name, (default, _) in described(settings).items():
        if name not in values:
            continue
        value = values[name]
        wanted = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(value, wanted) or isinstance(value, bool) != isinstance(default, bool):
            raise ValueError(f"{name} is {value!r}; expected something like {default!r}.")
        chosen[name] = value
    return settings(**chosen)


def clear_name(name: str) -> str:
    """What people read in place of an input's id: `token_lr` is the token learning rate."""
    return " ".join(_WORDS.get(word, word) for word in name.split("_"))


def check(settings: Any) -> None:
    """ValueError, with the value and what it may be, unless every setting lies within its field."""
    for name, (_, what) in described(type(settings)).items():
        value = getattr(settings, name)
        if what.choices and value not in what.choices:
            raise ValueError(f"{name} is {value!r}; choose one of: {', '.join(what.choices)}.")
        if what.low is not None and what.high is not None and not what.low <= value <= what.high:  # or NaN
            raise ValueError(f"{name} is {value:g}; it must lie between {what.low:g} and {what.high:g}.")


@dataclass(frozen=True)
class TrainSettings:
    """How one concept is trained, by whichever method."""

    steps: int = whole(500, 1, 100_000, "Optimizer steps. 500 suit a handful of photos on SD 1.5.")
    token_lr: float = number(1e-3, 0, 1, "Learning rate of the token.", step=1e-5, digits=9)
    batch_size: int = whole(1, 1, 64, "Concept images per step.")
    gradient_accumulation: int = whole(
        1, 1, 256, "Batches per optimizer step: a larger batch in the same memory.", rare=True
    )
    seed: int = whole(
        0,
        0,
        2**64 - 1,
        "The same seed and settings give the same memory, on one machine with one number of threads; "
        "elsewhere its numbers drift apart, while its likeness stays.",
    )
    prior: str = choice(
        "image-free",
        tuple(PRIORS),
        "Keeps the class as it was. "
        "image-free: the untouched model's own prediction is the target (no images needed); "
        "drawn class images: by the base model, drawn once and kept; "
        "given class images: connect some; "
        "replay: the class and every earlier concept are drawn as the memory has them, and their pictures "
        "predicted as before; none.",
    )
    prior_weight: float = number(1.0, 0, 100, "Weight of the prior's loss.", step=0.1)
    class_image_count: int = whole(
        200, 1, 10_000, "For 'drawn class images' and 'replay': how many.", rare=True
    )
    lr_schedule: str = choice("constant", LR_SCHEDULES, "Learning rates over time.", rare=True)
    warmup_steps: int = whole(0, 0, 100_000, "Steps over which the learning rates rise.", rare=True)
    min_snr_gamma: float = number(
        0.0, 0, 1000, "min-SNR weighting of noise levels; 5 is usual, 0 is off.", step=0.5, rare=True
    )
    masked_loss: bool = switch(False, "Learn only from where the pictures' masks are white.", rare=True)
    vectors: int = whole(
        1,
        1,
        MAX_LEARNED,
        "Vectors that the token stands for. Several can say more of the concept, and each takes the room of "
        "a word in prompts.",
        rare=True,
    )

    def __post_init__(self) -> None:
        check(self)
        if self.warmup_steps > self.steps:
            raise ValueError(
                f"There are {self.warmup_steps} warmup steps, but {self.steps} steps in all. Lower them."
            )

    def chosen_prior(self) -> Prior:
        """The prior that takes part: none at all where its weight is 0."""
        return PRIORS[self.prior if self.prior_weight > 0 else "none"]

    def as_dict(self) -> dict[str, Any]:
        """By name, as a file keeps them."""
        return asdict(self)
