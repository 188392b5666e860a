"""General prompts: what a model is asked for when no learned concept is meant.

128 prompts span too little of a feature space of 768 or 2048 dimensions. These are made of the word lists in
`words/`, as many as wanted: short and long, plain and in the manner of prompts, in a fixed order by seed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).with_name("words")

# Each list's words in the place of its name; a short form comes more often than a long one is varied.
_PATTERNS = (
    "{thing}",
    "a {thing}",
    "a {quality} {thing}",
    "{style} of a {thing}",
    "{style} of a {quality} {thing}",
    "{style} of a {thing} {place}",
    "{style} of a {quality} {thing} {place}",
    "a {thing} and a {quality} {thing}",
    "{style} of a {thing} beside a {thing}",
    "a {quality} {thing} {place}, {speak}",
    "{thing}, {quality}, {style}, {speak}, {speak}",
    "{person} {action} {place}",
    "{style} of {person} {action}",
    "{style} of {person} with a {quality} {thing}, {speak}",
    "{person} {action} {place}, {style}, {speak}, {speak}, {speak}",
    "{style}, {quality} and {quality}, {place}",
)


def general_prompts(count: int, seed: int = 0) -> tuple[str, ...]:
    """The empty prompt, the usual negative prompts, and made prompts: `count` together, no two alike.
    With one seed the first n of many are those of n. ValueError for a count below 1.
    """
    if count < 1:
        raise ValueError(f"{count} general prompts asked for; at least 1 is needed.")
    rng = random.Random(seed)
    prompts = dict.fromkeys(["", *_words("negative_prompts")][:count])
    while len(prompts) < count:
        prompts[_made(rng)] = None
    return tuple(prompts)


def things() -> tuple[str, ...]:
    """Ordinary things by name."""
    return _words("things")


def _made(rng: random.Random) -> str:
    text = _pick(rng, _PATTERNS)
    for name, file in (
        *(("thing", "things"), ("quality", "qualities"), ("place", "places"), ("style", "styles")),
        *(("person", "people"), ("action", "actions"), ("speak", "prompt_speak")),
    ):
        while (slot := f"{{{name}}}") in text:
            text = text.replace(slot, _pick(rng, _words(file)), 1)
    words = text.split(" ")
    for i, word in enumerate(words[:-1]):
        if word == "a" and words[i + 1][0] in "aeio":
            words[i] = "an"
    return " ".join(words)


def _pick(rng: random.Random, among: Sequence[str]) -> str:
    # Of all that the generator offers, only `random()` is promised to give the same in every Python.
    return among[int(rng.random() * len(among))]


@cache
def _words(name: str) -> tuple[str, ...]:
    lines = (_FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))
