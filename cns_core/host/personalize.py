"""MODEL and CLIP that draw a memory's concepts."""

from __future__ import annotations

from ..memory import ConceptMemory
from .apply import apply_changes
from .model import read_base
from .text import with_tokens
from .types import Clip, Model


def personalize(
    model: Model,
    clip: Clip,
    memory: ConceptMemory,
    strength: float = 1.0,
    as_of: str = "",
    strengths: str = "",
) -> tuple[Model, Clip]:
    """Clones of MODEL and CLIP with the memory's values and tokens.

    Args:
        strength: of all weight changes.
        as_of: an earlier stage, see `ConceptMemory.stage`; empty for all of it.
        strengths: of single concepts, see `ConceptMemory.strengths`.

    Raises:
        ValueError: the memory was made on another base, or has no such stage or concept.
    """
    memory.check_base(read_base(model, clip).identity)
    stage, single = memory.stage(as_of) if as_of.strip() else memory, memory.strengths(strengths)
    return apply_changes(model, stage, strength, single), with_tokens(clip, stage.token_vectors())
