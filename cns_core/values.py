"""Values that come from outside: checked where they enter, and shown no longer than a line."""

from __future__ import annotations

import unicodedata
from typing import Any

# Surrogates cannot be written as UTF-8; line and paragraph separators break lists.
_NOT_ON_A_LINE = frozenset(("Cc", "Cs", "Zl", "Zp"))


def shown(value: object, most: int = 60) -> str:
    """A value as it goes into a message, however long it is."""
    text = repr(value[: most + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= most + 2 else f"{text[:most]}..."


def odd_character(text: str) -> str | None:
    """The first character that has no place in one printable line, as U+XXXX; None when there is none."""
    if text.isprintable():  # fast, and stricter
        return None
    found = next((c for c in text if unicodedata.category(c) in _NOT_ON_A_LINE), None)
    return None if found is None else f"U+{ord(found):04X}"


def line_of_text(value: Any, what: str, most: int, *, may_be_empty: bool = False) -> str:
    """The value, when it is one printable line of at most so many characters. ValueError otherwise."""
    if not isinstance(value, str):
        raise ValueError(f"{what} is {shown(value)}, expected text")
    if len(value) > most:
        raise ValueError(f"{what} has {len(value):,} characters, expected at most {most:,}: {shown(value)}")
    if not value.strip() and not may_be_empty:
        raise ValueError(f"{what} is empty ({value!r})")
    if (odd := odd_character(value)) is not None:
        raise ValueError(f"{what} has the control character {odd}: {shown(value)}")
    return value


def whole_number(value: Any, what: str, low: int, high: int) -> int:
    """The value, when it is an int from `low` to `high`. ValueError otherwise."""
    if type(value) is not int or not low <= value <= high:  # True is no number
        raise ValueError(f"{what} is {shown(value)}, expected a whole number from {low:,} to {high:,}")
    return value
