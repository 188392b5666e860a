"""The concepts of a space: of one kind, learned by one method, each alone, on one base."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..concept import ERASURE, check_free
from ..identity import ModelIdentity
from ..memory import ConceptMemory, LearnedConcept
from ..methods import METHODS
from ..projections import ProjectionLayout
from ..within import is_sum

LEAST = 3  # with two there is nothing but the line through both
ENOUGH = 40  # below it, a space says more of its few concepts than of what they have in common


@dataclass(frozen=True, eq=False)
class Members:
    """layout: keys and values of the base; weights: those that the concepts have moved."""

    base: ModelIdentity
    layout: ProjectionLayout
    concepts: tuple[LearnedConcept, ...]

    def __len__(self) -> int:
        return len(self.concepts)

    @property
    def weights(self) -> ProjectionLayout:
        return self.concepts[0].change.layout

    def place(self, name: str) -> int:
        """Of a concept, by its name or token. ValueError for one that is not here."""
        for place, concept in enumerate(self.concepts):
            if name.lower() in (concept.name.lower(), concept.token):
                return place
        known = [concept.token for concept in self.concepts]
        shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
        raise ValueError(f"No concept {name!r} in this space; it has {len(known)}: {shown}.")

    def places(self, text: str) -> list[int]:
        """Of concepts by name or token, between commas or line ends; ValueError for one that comes twice."""
        found: list[int] = []
        for part in filter(None, map(str.strip, text.replace("\n", ",").split(","))):
            place = self.place(part)
            if place in found:
                raise ValueError(f"{self.concepts[place].token} is named twice in one list; name it once.")
            found.append(place)
        return found

    def check_fits(self, concept: LearnedConcept, base: ModelIdentity) -> None:
        """ValueError unless a concept of any origin can be moved along directions of this space."""
        first = self.concepts[0]
        if not base.same_as(self.base):
            raise ValueError(
                f"{concept.name!r} was made on {base}, the space on {self.base}{self.base.told_apart(base)}. "
                "A concept can be moved in a space of its own base only."
            )
        if concept.kind == ERASURE or _vectors(concept) != _vectors(first):
            raise ValueError(
                f"The token of {concept.name!r} has the vectors {_vectors(concept) or 'none'}; "
                f"those of the space have {_vectors(first)}. Learn it with as many vectors as they have."
            )
        if concept.change.layout != self.weights or not is_sum(concept.change):
            raise ValueError(
                f"{concept.name!r}, by {concept.method}, did not move weights as those of the space did, by "
                f"{first.method}. Learn it by the same method, with the same weights."
            )


def gathered(memories: Sequence[ConceptMemory]) -> Members:
    """All concepts of some memories. One that several hold, equal to the last bit, is taken once.

    Raises:
        ValueError: they do not make a space; the reason names concepts and what to do.
    """
    first = memories[0]
    concepts: list[LearnedConcept] = []
    held: set[str] = set()
    for number, memory in enumerate(memories, 1):
        if not memory.base.same_as(first.base) or memory.layout != first.layout:
            raise ValueError(
                f"Memory 1 was made on {first.base}, memory {number} ({', '.join(memory.names())[:100]}) on "
                f"{memory.base}{first.base.told_apart(memory.base)}. A space is made of concepts of one base."
            )
        for concept in memory.concepts:
            if (digest := concept.digest()) in held:
                continue
            check_free(concept.handle, concept.name, [(c.name, c.handle) for c in concepts])
            held.add(digest)
            concepts.append(concept)
    _check(concepts)
    return Members(first.base, first.layout, tuple(concepts))


def _check(concepts: Sequence[LearnedConcept]) -> None:
    if len(concepts) < LEAST:
        raise ValueError(
            f"There are {len(concepts)} concepts; a space needs {LEAST} at the very least, and {ENOUGH} or "
            "more to be of use. Learn more of the same kind, each alone, or connect more memories."
        )
    _alike(concepts, "method", lambda c: c.method, "Learn all of them by one method.")
    _alike(concepts, "kind", lambda c: c.kind, "Make a space of subjects, styles or scenes alone.")
    first = concepts[0]
    if first.method not in METHODS:
        raise ValueError(
            f"{first.name!r} was made by {first.method}, with other concepts in view. A space is made of "
            "concepts as they were learned: connect the memories that they came from."
        )
    for concept in concepts:
        if not is_sum(concept.change):
            raise ValueError(
                f"{concept.name!r} was learned by {concept.method}, which takes the place of weights. Only "
                "what is added can be mixed: learn the concepts by directions or lora, for example."
            )
        if concept.change.layout != first.change.layout:
            raise ValueError(
                f"{first.name!r} moved {len(first.change.layout.names)} matrices, {concept.name!r} "
                f"{len(concept.change.layout.names)}, or others. Learn all of them on the same weights."
            )
        if _vectors(concept) != _vectors(first):
            raise ValueError(
                f"The token of {first.name!r} has the vectors {_vectors(first)}, that of {concept.name!r} "
                f"{_vectors(concept)}. Learn all of them with as many vectors."
            )
        if below := concept.settings.get("after", {}).get("concepts"):
            raise ValueError(
                f"{concept.name!r} was learned on top of {below} other concept(s), so that what it left is "
                "not all that it needs. Learn each concept of a space alone, with no memory connected, and "
                "join them by Merge Memories or name their files."
            )


def _alike(
    concepts: Sequence[LearnedConcept], what: str, of: Callable[[LearnedConcept], str], way_out: str
) -> None:
    found = Counter(map(of, concepts))
    if len(found) > 1:
        seen = ", ".join(f"{value} ({count})" for value, count in found.most_common())
        raise ValueError(f"The concepts are of more than one {what}: {seen}. {way_out}")


def _vectors(concept: LearnedConcept) -> dict[str, list[int]]:
    """The shape of each encoder's."""
    return {encoder: list(found.shape) for encoder, found in sorted(concept.token_vectors.items())}
