"""What learned concepts are drawn with, in the small base's own words."""

from __future__ import annotations

from devtools.concept_folders import ConceptFolder
from small_base.world.wording import a_or_an

COUNT = 8  # for each concept


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
