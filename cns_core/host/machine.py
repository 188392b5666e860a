"""How much of the machine's memory may be taken."""

from __future__ import annotations

import comfy.model_management as management
import torch

_SHARE = 0.5  # of what is free; the rest is for the models


def memory_for_pictures() -> float:
    """Bytes of main memory that a concept's pictures may take."""
    return _SHARE * float(management.get_free_memory(torch.device("cpu")))
