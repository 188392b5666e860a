"""Names of files as users write them: in any script, with sub-folders, with dates to be filled in."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime

_ENDING = ".safetensors"
_MOST_BYTES = 200  # of one part: file systems take 255, and a file being written has a longer name
_FORBIDDEN = frozenset('<>:"|?*')  # what some file system or other cannot keep
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_DATE = re.compile(r"%date:([^%]*)%|%(year|month|day|hour|minute|second)%")
_DATE_PARTS = re.compile(r"yyyy|yy|MM?|dd?|hh?|mm?|ss?")


def checked_file_name(name: str, now: datetime) -> str:
    """The relative path that a name stands for, without an ending, its parts separated by `/`.

    Letters and marks of any script are composed (NFC), so that one name is one file. What *SaveImage* fills
    in is filled in: `%date:yyyy-MM-dd%`, and `%year%` to `%second%`.

    Example:
        >>> checked_file_name("pets/%date:yyyy-MM-dd% dog.SafeTensors", datetime(2026, 3, 1))
        'pets/2026-03-01 dog'

    Raises:
        ValueError: no file of this name can be made everywhere.
    """
    text = unicodedata.normalize("NFC", _DATE.sub(lambda match: _filled_in(match, now), name.strip()))
    text = text.replace("\\", "/")
    if text.lower().endswith(_ENDING):
        text = text[: -len(_ENDING)]
    for part in text.split("/"):
        if (fault := _fault(part)) is not None:
            raise ValueError(
                f"{name!r} is no usable file name: {fault}. Write a name such as my_concepts; sub-folders "
                "are separated by /."
            )
    return text


def _fault(part: str) -> str | None:
    if not part.strip():
        return "a part of it is empty"
    if part != part.strip() or part.startswith(".") or part.endswith("."):
        return f"{part!r} begins or ends with a space or a dot"
    bad = sorted({c for c in part if c in _FORBIDDEN or unicodedata.category(c) in ("Cc", "Cs", "Cn", "Co")})
    if bad:
        return f"{part!r} has {', '.join(map(repr, bad))}"
    if _RESERVED.fullmatch(part):
        return f"{part!r} is a device on Windows"
    if (size := len(part.encode("utf-8"))) > _MOST_BYTES:
        return f"{part[:20]!r}... takes {size} bytes, more than {_MOST_BYTES}"
    return None


def _filled_in(match: re.Match[str], now: datetime) -> str:
    parts = {"y": now.year, "M": now.month, "d": now.day, "h": now.hour, "m": now.minute, "s": now.second}

    def part(found: re.Match[str]) -> str:
        number = str(parts[found[0][0]])
        return number[2:] if found[0] == "yy" else number.zfill(len(found[0]))

    if match[2]:
        named = {"year": "yyyy", "month": "MM", "day": "dd", "hour": "hh", "minute": "mm", "second": "ss"}
        return _DATE_PARTS.sub(part, named[match[2]])
    return _DATE_PARTS.sub(part, match[1] or "yyyyMMddhhmmss")
