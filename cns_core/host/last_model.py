"""Which base model the pack has seen last: memories of another one are marked in the page."""

from __future__ import annotations

from collections.abc import Sequence

from ..identity import ModelIdentity

_seen: list[tuple[ModelIdentity, ...]] = [()]


def note(identities: Sequence[ModelIdentity]) -> None:
    """A node of the pack was given this model; several identities where it carries LoRAs."""
    _seen[0] = tuple(identities)


def is_another(base: ModelIdentity) -> bool | None:
    """Whether a base is another model than the one seen last; None where none was seen yet."""
    return not any(base.same_as(one) for one in _seen[0]) if _seen[0] else None
