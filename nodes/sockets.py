"""The pack's own socket types, and the few schema features that older hosts lack."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

CATEGORY = "CNS"

ConceptSocket = io.Custom("CONCEPT")
NeuronsSocket = io.Custom("NEURONS")
MemorySocket = io.Custom("MEMORY")


def schema(**keywords: Any) -> io.Schema:
    """An `io.Schema` without the keywords that this host does not know yet (all of them cosmetic)."""
    known = io.Schema.__dataclass_fields__
    return io.Schema(category=CATEGORY, **{k: v for k, v in keywords.items() if k in known})


def advanced(socket: Any) -> Any:
    """Mark an input as rarely used; hosts that know the mark fold it away."""
    socket.extra_dict = {**(socket.extra_dict or {}), "advanced": True}
    return socket
