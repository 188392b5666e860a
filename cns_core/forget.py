"""Taking one concept out of a memory again: its token, and its share of the weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .memory import ConceptMemory, LearnedConcept
from .within import is_sum, within


@dataclass(frozen=True, eq=False)
class Forgotten:
    """What is left, and what became of the concept's share.

    exact: its share was added to everything else and is gone without a rest. Otherwise it had taken the place
    of entries: own of them go back to the base model, earlier ones to what concepts before it had made of
    them, and later ones stay as they are, since concepts after it determine them and were learned on top of
    it. Where a later concept determines an entry by comparing with what is there, it does not stay.
    """

    memory: ConceptMemory
    concept: LearnedConcept
    exact: bool
    own: int = 0
    earlier: int = 0
    later: int = 0

    def told(self) -> list[str]:
        """In words, a line each."""
        concept = self.concept
        if concept.token:
            lines = [f"`{concept.token}` ({concept.name}) is forgotten: its token means nothing any more"]
        else:
            lines = [f"{concept.name} is undone: what was erased is there again"]
        if self.exact:
            lines.append(f"its share of the weights is gone without a rest: {concept.change.summary()}")
            return lines
        lines.append(f"of its {self.own + self.earlier + self.later:,} entries {self.own:,} were its own")
        if self.earlier:
            lines.append(f"{self.earlier:,} are again as earlier concepts had left them")
        if self.later:
            lines.append(
                f"{self.later:,} stay: later concepts have moved them too, and were learned on top of it"
            )
        return lines


def forget(memory: ConceptMemory, which: str) -> Forgotten:
    """A memory without one concept or erasure, by its name or token. ValueError when there is none such."""
    concept = memory.concept(which.strip())
    rest = memory.without(concept.handle)
    place = memory.concepts.index(concept)
    if all(is_sum(c.change) for c in memory.concepts[place:]):
        return Forgotten(rest, concept, exact=True)
    own = earlier = later = 0
    seen = [within(c.change, memory.whole) for c in memory.concepts]
    with_it, without_it = memory.changes(), rest.changes()
    sums = [is_sum(c.change) for c in memory.concepts]
    for name in concept.change.layout.names:
        moved = concept.change.moved(name)
        ruled, before = torch.zeros_like(moved), torch.zeros_like(moved)
        for number, other in enumerate(seen):
            if number < place:
                before |= other.moved(name)
            elif number > place and not sums[number]:
                ruled |= other.moved(name)
        if name in without_it:
            ruled &= with_it[name] == without_it[name]
        own += int((moved & ~before & ~ruled).sum())
        earlier += int((moved & before & ~ruled).sum())
        later += int((moved & ruled).sum())
    return Forgotten(rest, concept, False, own, earlier, later)
