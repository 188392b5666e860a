"""The suites: what is compared, as lists of jobs. Each is a function of what was asked for."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cns_core.erasures import ERASURES
from cns_core.methods import METHODS
from cns_core.methods.cns.scores import SCORES
from cns_core.methods.directions.settings import BOTH, KEYS, VALUES
from cns_core.protected import ALL_TOKENS
from cns_core.text_features import TOKEN_CHOICES

from .entries import entries_job
from .jobs import Job
from .overlap import overlap_job
from .streams import AT_THE_END, EACH, FOURS, NEVER, every_concept, folders_of_set, stream_job
from .unlearn import UNTOUCHED, settings_to_give, unlearn_job
from .variants import SETTINGS, VARIANTS
from .worker import BASE

SETS = (1, 2, 3)
# Of one kind, with looks in common: black and white, many colours, flat colours, dark and round things.
ALIKE = (
    ("panda", "skunk"),
    ("parrot", "tropical-fish"),
    ("pop-print-style", "openmoji-style"),
    ("reef-place", "space-place"),
)
ABLATION = ("cns", "random entries", "cns without L_reg", "random entries without L_reg", "all K/V")
COMPARED = (
    "directions",
    *ABLATION,
    "perfusion",
    "continual diffusion",
    "low-rank merged",
    "lora",
    "orthogonal adaptation",
    "custom diffusion",
    "mix-of-show",
    "token alone",
)
ORDERS = 3  # of the first set, besides its own
# Of what is swept, one at a time, everything else being the bench's own.
SWEEPS: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "directions": {
        "directions": (1, 2, 4, 8, 12, 16, 32),
        "least_gain": (0.1, 0.5, 2.0, 10.0),
        "general_prompts": (128, 0, 4096),  # 0: 1,024 on a CPU
        "class_weight": (1.0, 3.0, 10.0, 100.0),
        "floor": (3e-3, 1e-2, 3e-2, 1e-1),
        "direction_lr": (0.01, 0.02, 0.05),
        "guard": (0.0, 0.1, 1.0),
        "token_first": (0.2, 0.3, 0.5),
        "token_after": (0.1, 0.3, 1.0),
        "token_lr": (3e-3, 1e-2, 3e-2),
        "moves": (BOTH, KEYS, VALUES),
        "protected_tokens": (ALL_TOKENS, "caption words"),
        "batch_size": (2, 4, 8),
        "steps": (75, 150, 300),
    },
    "cns": {
        "budget_percent": (2.0, 6.5, 17.0),
        "calibration_prompts": (16, 64, 128),
        "tokens": TOKEN_CHOICES,
        "keep_earlier": (0.0, 1e-3, 1e-2, 1e-1),
        "keep_base": (0.0, 1e-4, 1e-2),
        "neuron_lr": (3e-4, 1e-3, 3e-3),
        "token_lr": (3e-3, 1e-2, 3e-2),
        "steps": (75, 150, 300),
    },
}


@dataclass(frozen=True)
class Asked:
    """methods: variants, none for the suite's own; seeds: how many; quick: what fits 20 minutes on two cores;
    settings: of all variants, by name; given: what was given, of these or of what else a suite is about.
    base: what is known of the base model.
    """

    methods: tuple[str, ...]
    seeds: int
    quick: bool
    settings: Mapping[str, Any]
    given: Mapping[str, Any] = field(default_factory=dict)
    base: Mapping[str, Any] = field(default_factory=lambda: BASE)

    def runs(self, default: Sequence[str]) -> Iterator[tuple[int, str]]:
        """Seed by seed, every method."""
        for seed in range(self.seeds):
            for method in self.methods or (default[:2] if self.quick else default):
                yield seed, method

    def stream(self, stream: Sequence[str], method: str, seed: int, draw: str, **more: Any) -> Job:
        return stream_job(stream, method, seed, draw, self.settings, **self.base, **more)


def paper(asked: Asked) -> list[Job]:
    """Three ordered sets of seven, drawn by prompts with one, two and three concepts (Table 1)."""
    sets = SETS[:1] if asked.quick else SETS
    return [
        asked.stream(
            _short(folders_of_set(number), asked), method, seed, AT_THE_END, **_prompts(number, asked)
        )
        for seed, method in asked.runs(COMPARED)
        for number in sets
    ]


def long(asked: Asked) -> list[Job]:
    """All twenty concepts in one stream."""
    stream = [folder.folder.name for folder in every_concept()]
    return [
        asked.stream(_short(stream, asked, 5), method, seed, AT_THE_END)
        for seed, method in asked.runs(COMPARED)
    ]


def order(asked: Asked) -> list[Job]:
    """The first set in its own and other orders."""
    found, own = [], _short(folders_of_set(1), asked)
    for seed, method in asked.runs(("directions", "cns", "all K/V")):
        for number in range(1 if asked.quick else ORDERS + 1):
            stream = list(own)
            if number or asked.quick:
                random.Random(number).shuffle(stream)
            found.append(asked.stream(stream, method, seed, AT_THE_END))
    return found


def alike(asked: Asked) -> list[Job]:
    """Pairs of concepts that are easily taken for each other."""
    pairs = ALIKE[:1] if asked.quick else ALIKE
    runs = asked.runs(("directions", "cns", "all K/V", "lora", "token alone"))
    return [asked.stream(pair, method, seed, EACH) for seed, method in runs for pair in pairs]


def forgetting(asked: Asked) -> list[Job]:
    """The first set, every concept drawn again after each (Fig. 5)."""
    stream = _short(folders_of_set(1), asked)
    return [asked.stream(stream, m, seed, EACH) for seed, m in asked.runs(("directions", *ABLATION))]


def ablation(asked: Asked) -> list[Job]:
    """CNS and what is left out of it, on four streams (Table 2)."""
    streams = FOURS[:1] if asked.quick else FOURS
    return [
        asked.stream(stream, method, seed, AT_THE_END)
        for seed, method in asked.runs(ABLATION)
        for stream in streams
    ]


def overlap(asked: Asked) -> list[Job]:
    """Concept neurons of eleven prompts, one word changed at a time (Fig. 7)."""
    scores = list(SCORES)[:1] if asked.quick else list(SCORES)
    return [
        overlap_job(asked.settings, score, tokens, **asked.base)
        for score in scores
        for tokens in TOKEN_CHOICES
    ]


def entries(asked: Asked) -> list[Job]:
    """How well single entries of K/V tell concepts from everything else, beside directions."""
    streams = [FOURS[0][:1]] if asked.quick else FOURS
    return [entries_job(stream, asked.settings, **asked.base) for stream in streams]


def sweep(asked: Asked) -> list[Job]:
    """One setting at a time, on the first stream of four, without drawing."""
    found = []
    stream = FOURS[0][:1] if asked.quick else FOURS[0]
    for seed in range(asked.seeds):
        for method in asked.methods or tuple(SWEEPS):
            swept = list(SWEEPS[method].items())
            for setting, values in swept[:1] if asked.quick else swept:
                for value in (values[0], values[-1]) if asked.quick else values:
                    settings = {**asked.settings, setting: value}
                    found.append(stream_job(stream, method, seed, NEVER, settings, **asked.base))
    return found


def methods(asked: Asked) -> list[Job]:
    """One concept by every method there is, to be looked at: a row of pictures each."""
    runs = asked.runs((*METHODS, "boft"))
    return [asked.stream(("panda",), method, seed, AT_THE_END) for seed, method in runs]


def joining(asked: Asked) -> list[Job]:
    """A thing and a style, learned apart and joined by every rule, and one after another."""
    apart = ("custom diffusion", "mix-of-show", "ziplora", "loras summed")
    in_a_row = ("directions", "l2dm", *(name for name in METHODS if name.startswith("low-rank")))
    return [
        asked.stream(("panda", "pop-print-style"), method, seed, AT_THE_END)
        for seed, method in asked.runs((*apart, *in_a_row))
    ]


def unlearn(asked: Asked) -> list[Job]:
    """A word erased in each way: what goes along with it, and what an attack brings back."""
    quick = {"pictures": 2, "attack_steps": 20} if asked.quick else {}
    ways = asked.methods or (tuple(ERASURES)[:2] if asked.quick else tuple(ERASURES))
    return [
        unlearn_job(way, seed, {**quick, **asked.given}, **asked.base)
        for seed in range(asked.seeds)
        for way in (UNTOUCHED, *ways)
    ]


SUITES: dict[str, Callable[[Asked], list[Job]]] = {
    suite.__name__: suite
    for suite in (
        *(paper, long, order, alike, forgetting, overlap, entries, ablation, sweep, methods, joining),
        unlearn,
    )
}


def methods_of(suite: str) -> tuple[str, ...]:
    """What a suite can compare."""
    of_their_own: dict[str, tuple[str, ...]] = {"sweep": tuple(SWEEPS), "unlearn": tuple(ERASURES)}
    return of_their_own.get(suite, tuple(VARIANTS))


def check_methods(suite: str, methods: Sequence[str]) -> None:
    """ValueError for one that the suite does not know."""
    known = methods_of(suite)
    if unknown := sorted(set(methods) - set(known)):
        raise ValueError(f"Unknown methods: {', '.join(unknown)}. Known ones: {', '.join(known)}.")


def given_settings(suite: str, words: Sequence[str]) -> dict[str, Any]:
    """Of words such as `steps=300`, the settings by name. ValueError for what the suite does not know."""
    own = {name: default for name, default, _ in SETTINGS}
    known, given = settings_to_give() if suite == "unlearn" else own, {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in known or "=" not in word:
            raise ValueError(f"{word!r} is no NAME=VALUE of one of: {', '.join(sorted(known))}.")
        given[name] = value.split(",") if isinstance(known[name], list) else type(known[name])(value)
    return given


def _short(stream: Sequence[str], asked: Asked, count: int = 3) -> list[str]:
    return list(stream[:count] if asked.quick else stream)


def _prompts(number: int, asked: Asked) -> dict[str, int]:
    # The set's prompts name all of its concepts, and a quick run learns some.
    return {} if asked.quick else {"prompts_of": number}
