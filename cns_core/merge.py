"""Two memories of one base as one."""

from __future__ import annotations

from .concept import check_free
from .memory import ConceptMemory


def merged(first: ConceptMemory, second: ConceptMemory) -> ConceptMemory:
    """The concepts of the first, then those of the second. One that both hold, equal to the last bit, is
    taken once.

    Raises:
        ValueError: they were made on different models, or two different concepts share a name or token.
    """
    if not first.base.same_as(second.base) or first.layout != second.layout:
        raise ValueError(
            f"The first memory was made on {first.base}, the second on {second.base}"
            f"{first.base.told_apart(second.base)}. Only memories of one model can become one."
        )
    held = {concept.digest() for concept in first.concepts}
    both = first
    for concept in second.concepts:
        if concept.digest() in held:
            continue
        try:
            check_free(concept.handle, concept.name, [(c.name, c.handle) for c in both.concepts])
        except ValueError as error:
            raise ValueError(
                f"Both memories have a concept {concept.name!r} or a token {concept.handle}, learned "
                "otherwise. Forget one of the two with Forget Concept, or learn it under another name and "
                "token."
            ) from error
        both = both.with_learned(concept)
    return both
