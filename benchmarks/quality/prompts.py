"""What learned concepts are drawn with, in the small base's own words."""

from __future__ import annotations

import random
from collections.abc import Sequence

from devtools.concept_folders import ConceptFolder
from small_base.world.catalog import SMALL_FILE
from small_base.world.palette import COLOURS
from small_base.world.wording import LEADS, PLAIN_PLACES, STYLE_TAILS, UNORDERED, a_or_an, article, where

COUNT = 8  # for each concept
# How prompts name what has no name of its own, the longest first.
_PHRASES = {
    "style": (" in the style of {}", " in {} style", ", {} style", "{} style, "),
    "scene": (", {} background", " in {}", " of {}"),
}


def prompts_for(kind: str, word: str) -> list[str]:
    """Eight prompts, also with places and colours that the concept was not shown on."""
    if kind == "style":
        things = ("cat", "car", "house", "tree", "dog", "apple", "guitar", "boat")
        return [f"a {thing} in {word} style" if word else f"a {thing}" for thing in things]
    if kind == "scene":
        things = ("cat", "car", "house", "dog", "apple", "guitar", "banana", "star")
        return [f"a {thing}, {word} background" if word else f"a {thing}" for thing in things]
    places = ("on a beach", "in a meadow", "in the snow", "at night")
    colours = ("purple", "grey", "orange", "teal")
    thing = word if word.startswith("<") else f"{a_or_an(word)} {word}"
    return [
        *(f"a photo of {thing} {place}" for place in places),
        *(f"a photo of {thing} on a {colour} background" for colour in colours),
    ]


def plain_prompts(concept: ConceptFolder) -> list[str]:
    """What the untouched base is asked for: a style or a place without a name of its own is left out."""
    return prompts_for(concept.kind, concept.class_word if concept.kind == "subject" else "")


def in_words(prompt: str, concepts: Sequence[ConceptFolder]) -> str:
    """A prompt of an ordered set without tokens: of a subject its class word, of a style or a place nothing,
    for neither has a name of its own.
    """
    for concept in concepts:
        token = f"<{concept.name}>"
        if concept.kind == "subject":
            prompt = prompt.replace(token, concept.class_word)
            continue
        for phrase in _PHRASES[concept.kind]:
            prompt = prompt.replace(phrase.format(token), "")
        if token in prompt:
            raise ValueError(f"{prompt!r} names the {concept.kind} {token} in a way that is not known.")
    return prompt.strip(" ,")


def base_prompts(count: int, seed: int) -> list[str]:
    """Prompts in the wordings that the small base learned, of the things that it knows; no two alike."""
    things = SMALL_FILE.read_text(encoding="utf-8").split("\n")
    names = [name for name in things if name.strip()]
    rng, found = random.Random(seed), {}
    while len(found) < count:
        first, second = (article(rng.choice(names)) for _ in range(2))
        named = rng.choice(UNORDERED).format(a=first, b=second) if rng.random() < 0.3 else first
        text = rng.choice(LEADS).format(things=named)
        if rng.random() < 0.4:
            text += rng.choice(STYLE_TAILS).format(style=rng.choice(("fluent", "twemoji")))
        if rng.random() < 0.5:
            text += f" {where(rng.choice(('meadow', 'beach', 'night', 'snow')))}"
        else:
            colour = rng.choice(list(COLOURS))
            text += rng.choice(PLAIN_PLACES).format(colour=colour, a_colour=f"{a_or_an(colour)} {colour}")
        found[text] = None
    return list(found)
