"""The concepts that the base never sees, which the benchmark later teaches it one after another."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

CONCEPTS_FILE = Path(__file__).with_name("concepts.json")


@dataclass(frozen=True)
class Concept:
    """One thing to learn."""

    id: int
    name: str  # the word that stands for it: "my-poodle"
    kind: str  # "subject", "style" or "scene"
    class_word: str  # what the base would call it; a word of its captions
    source: dict[str, str]  # {"object", "style"}, {"house_style"}, {"transform"} or {"scene"}
    words: tuple[str, ...]  # what no caption for the base may say


@dataclass(frozen=True)
class Concepts:
    """All of them."""

    concepts: tuple[Concept, ...]
    twins: frozenset[str]  # objects so like a held-out one that the world does without them

    def held_out_objects(self) -> tuple[str, ...]:
        """The names of the objects that only concepts show."""
        return tuple(one.source["object"] for one in self.concepts if "object" in one.source)

    def held_out_styles(self) -> frozenset[str]:
        """The house styles that only concepts show."""
        return frozenset(one.source["house_style"] for one in self.concepts if "house_style" in one.source)

    def held_out_scenes(self) -> frozenset[str]:
        """The scenes that only concepts show."""
        return frozenset(one.source["scene"] for one in self.concepts if "scene" in one.source)

    def banned_words(self) -> frozenset[str]:
        """What no caption for the base may say."""
        return frozenset(word for one in self.concepts for word in one.words)


def read_concepts(path: Path = CONCEPTS_FILE) -> Concepts:
    """The concepts in a JSON file of `{"concepts": [...], "twins": [...]}`."""
    read = json.loads(path.read_text(encoding="utf-8"))
    concepts = tuple(Concept(**{**one, "words": tuple(one["words"])}) for one in read["concepts"])
    return Concepts(concepts, frozenset(read["twins"]))
