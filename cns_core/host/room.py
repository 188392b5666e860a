"""Room on the host's device for a model that the host does not manage."""

from __future__ import annotations

import comfy.model_management as management

_BESIDE = 1.2  # times the weights: what a picture takes while it is looked at
_AT_LEAST = 2**28  # bytes, of it


def make_room(needed: int) -> None:
    """Have the host unload what is in the way of so many bytes of weights."""
    management.free_memory(int(needed * _BESIDE) + _AT_LEAST, management.get_torch_device())
