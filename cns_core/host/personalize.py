"""MODEL and CLIP that draw a memory's concepts."""

from __future__ import annotations

from ..memory import ConceptMemory
from .apply import apply_changes
from .model import read_base
from .text import with_tokens
from .types import Clip, Model


def personalize(
    model: Model, clip: Clip, memory: ConceptMemory, strength: float = 1.0, as_of: str = ""
) -> tuple[Model, Clip]:
    """Clones of MODEL and CLIP with the memory's values and tokens;
    ValueError when it was made on another base.
    """
    memory.check_base(read_base(model, clip).identity)
    stage = memory.stage(as_of) if as_of.strip() else memory
    return apply_changes(model, stage, strength), with_tokens(clip, stage.token_vectors())
