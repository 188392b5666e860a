"""Which pictures are drawn before an erasure is trained, and what each is called while it is."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from ..general_prompts import general_prompts, things
from ..method import Taught
from .wording import TEMPLATES, ToErase, named

_NEGATIVE = 32  # the first general prompts: what is written to be avoided, of which no picture is of use


@dataclass(frozen=True)
class Scene:
    """A picture to be drawn.

    prompt: what it is drawn by; captions: what it is called; others: the same prompts with what the words are
    led to.
    """

    prompt: str
    captions: tuple[str, ...]
    others: tuple[str, ...]


def of_words(what: ToErase, count: int) -> list[Scene]:
    """Pictures of the words in turn, in all wordings in turn; each goes by every wording."""
    return [Scene(named(word)[k], named(word), named(other)) for word, other, k in _turns(what, count)]


def of_words_as_any(what: ToErase, count: int, seed: int) -> list[Scene]:
    """The same, led to one ordinary thing or another."""
    known, pick = what.spare(things()), random.Random(seed)

    def others() -> tuple[str, ...]:
        # Of all that the generator offers, only `random()` is promised to give the same in every Python.
        return tuple(named(known[int(pick.random() * len(known))])[k] for k in range(len(TEMPLATES)))

    return [Scene(named(word)[k], named(word), others()) for word, _, k in _turns(what, count)]


def of_fallback(what: ToErase, count: int) -> list[Scene]:
    """Pictures of what the words are led to, each called by the words in its own wording."""
    return [
        Scene(named(other)[k], (named(word)[k],), (named(other)[k],))
        for word, other, k in _turns(what, count)
    ]


def of_kept(what: ToErase, keep: Sequence[str], taught: Sequence[Taught], count: int) -> list[Scene]:
    """Pictures of what stays: general prompts, the empty one first, the words to fall back on, what the user
    keeps, and the concepts of a memory by their captions, with and without their tokens. Each group has its
    turn.
    """
    general = ("", *general_prompts(count + _NEGATIVE)[_NEGATIVE:])
    groups = [
        what.spare(general),
        *(named(word) for word in dict.fromkeys(what.instead) if word),
        *(named(word) for word in keep),
        *(what.spare(concept.captions) for concept in taught),
        *(what.spare(concept.class_captions()) for concept in taught if concept.class_word),
    ]
    turns = [itertools.cycle(group) for group in groups if group]
    prompts = [next(turn) for turn, _ in zip(itertools.cycle(turns), range(count), strict=False)]
    return [Scene(prompt, (prompt,), (prompt,)) for prompt in prompts]


def _turns(what: ToErase, count: int) -> list[tuple[str, str, int]]:
    """(word, what it is led to, number of a wording) for each picture."""
    pairs = list(zip(what.words, what.instead, strict=True))
    return [(*pairs[i % len(pairs)], i // len(pairs) % len(TEMPLATES)) for i in range(count)]
