"""MODEL and CLIP that draw a memory's concepts."""

from __future__ import annotations

from typing import Any

from ..memory import ConceptMemory
from .apply import apply_values
from .model import identify
from .text import with_tokens


def personalize(
    model: Any, clip: Any, memory: ConceptMemory, strength: float = 1.0, as_of: str = ""
) -> tuple[Any, Any]:
    """Clones of MODEL and CLIP with the memory's values and tokens; ValueError when it was made on another
    base.
    """
    identity, _ = identify(model, clip)
    memory.check_base(identity)
    stage = memory.stage(as_of) if as_of.strip() else memory
    return apply_values(model, stage, strength), with_tokens(clip, stage.token_vectors())
