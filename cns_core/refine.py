"""Learning a concept further: on top of everything that is there, its own share and later concepts too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .concept import Concept
from .laid import Laid
from .memory import ConceptMemory, LearnedConcept
from .method import Change, Taught
from .projections import ProjectionLayout
from .within import is_sum, within


@dataclass(frozen=True, eq=False)
class Refining:
    """A memory while one of its concepts is learned further (`method.Earlier`): that one is not among those
    to be kept as they are, but what it has left is where learning goes on.
    """

    memory: ConceptMemory
    concept: LearnedConcept

    @property
    def others(self) -> ConceptMemory:
        """The memory of the other concepts."""
        return self.memory.without(self.concept.token)

    @property
    def layout(self) -> ProjectionLayout:
        return self.memory.whole

    def taught(self) -> tuple[Taught, ...]:
        return self.others.taught()

    def changes(self) -> Mapping[str, Tensor]:
        return self.memory.changes()

    def laid(self) -> Mapping[str, Laid]:
        return self.memory.laid()

    def left(self) -> Mapping[str, Change]:
        return self.others.left()

    def moved(self, name: str) -> Tensor:
        return self.others.moved(name)

    def result(self, learned: LearnedConcept) -> ConceptMemory:
        """The memory with what came of it, as its latest concept; `learned` as training left it."""
        since = self.memory.concepts[self.memory.concepts.index(self.concept) + 1 :]

        def ruled(name: str) -> Tensor:
            found = torch.zeros(self.layout.shape(name), dtype=torch.bool)
            for concept in since:
                if not is_sum(concept.change):
                    found |= within(concept.change, self.layout).moved(name)
            return found

        before, after = self.concept.losses, learned.losses
        losses = after
        if list(before) == list(after):
            losses = {name: torch.cat([before[name], values]) for name, values in after.items()}
        whole = replace(learned, change=self.concept.change.refined(learned.change, ruled), losses=losses)
        return self.others.with_learned(whole)


def to_refine(memory: ConceptMemory, concept: Concept) -> Refining:
    """The concept of a memory that these pictures are of, to be learned further. ValueError as from
    `pictured`.
    """
    return Refining(memory, pictured(memory, concept))


def pictured(memory: ConceptMemory, concept: Concept) -> LearnedConcept:
    """The concept of a memory that these pictures are of. ValueError when there is none, or when it goes by
    other words than the pictures' captions.
    """
    found = next((c for c in memory.concepts if c.token == concept.token), None)
    if found is None:
        known = ", ".join(f"{c.token} ({c.name})" for c in memory.with_tokens()) or "nothing"
        raise ValueError(
            f"This memory holds {known}, but these pictures are of {concept.token} ({concept.name}). Give "
            "Load Concept Images the token of the concept that is meant."
        )
    for what in ("name", "class_word", "kind"):
        was, is_now = getattr(found, what), getattr(concept, what)
        if was != is_now:
            raise ValueError(
                f"{concept.token} was learned with the {what} {was!r}, but these pictures have {is_now!r}. "
                f"Write {was!r} in Load Concept Images."
            )
    return found
