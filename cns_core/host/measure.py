"""How far the concepts of a memory move what others' prompts read, measured with the user's own CLIP."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..general_prompts import general_prompts
from ..interference import GENERAL, Interference, interference
from ..memory import ConceptMemory
from ..protected import ALL_TOKENS, automatic_count
from .model import read_base
from .prompt_reader import PromptReader
from .types import Clip, Model, OnProgress


def measured(
    model: Model, clip: Clip, memory: ConceptMemory, whose: Sequence[str], on_progress: OnProgress
) -> tuple[Interference, list[str]]:
    """How far the concepts `whose` (handles) move keys and values of general prompts and of every concept's
    captions, and notes for the user.

    The general prompts are those that directions protect, so that what was kept of them is found again.

    Raises:
        ValueError: the memory was made on another model.
    """
    base = read_base(model, clip)
    memory.check_base(base.identity)
    memory.check_fits(base.layout, base.unet, base.token_widths)
    width = base.layout.shapes[0][1]
    reader = PromptReader(clip, memory.token_vectors(), width, on_progress)
    prompts = general_prompts(automatic_count(reader.device))
    taught = memory.taught()
    groups = [prompts, *(concept.captions for concept in taught)]
    general, *own = reader.second_moments(groups, ALL_TOKENS, lasting=1)
    moments = {GENERAL: general, **{c.token: moment for c, moment in zip(taught, own, strict=True)}}
    gram = torch.zeros(width, width, dtype=torch.float64)
    for weight in base.weights.values():
        wide = weight.float()
        gram += (wide.T @ wide).to("cpu", torch.float64)
    return interference(memory, whose, moments, gram), reader.notes
