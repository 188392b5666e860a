"""What may become of a safetensors file: bytes lost or changed, and anything where a word or number was."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, -(2**63), 10**30, 0.5, float("inf"), float("nan")),
    *("", " ", "\n", "\x00", "\ud800", "‮", "../../x", "<x>", "x" * 300, "x" * 100_000, "1", "concepts"),
    *([], {}, [[]], [None], [1, 2, 3], {"x": {}}, ["a", "a"]),
)


def mutated(content: bytes, other: bytes, chance: Random) -> bytes:
    """A file that is not what it was; other: one more to take parts of."""
    change = chance.choice(_CHANGES)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        content = change(content, other, chance)
    return content


def _cut(content: bytes, other: bytes, chance: Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _flip(content: bytes, other: bytes, chance: Random) -> bytes:
    if not content:
        return other
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]


def _overwrite(content: bytes, other: bytes, chance: Random) -> bytes:
    at, count = chance.randrange(len(content) + 1), chance.randrange(1, 64)
    return content[:at] + chance.randbytes(count) + content[at + count :]


def _insert(content: bytes, other: bytes, chance: Random) -> bytes:
    at = chance.randrange(len(content) + 1)
    return content[:at] + chance.randbytes(chance.randrange(1, 16)) + content[at:]


def _graft(content: bytes, other: bytes, chance: Random) -> bytes:
    at = chance.randrange(len(content) + 1)
    return content[:at] + other[at:]


def _length(content: bytes, other: bytes, chance: Random) -> bytes:
    number = chance.choice((0, 1, 2**20, 2**40, 2**63, 2**64 - 1, chance.randrange(len(content) + 9)))
    return struct.pack("<Q", number) + content[8:]


def _header(content: bytes, other: bytes, chance: Random) -> bytes:
    def change(header: Any) -> Any:
        return _elsewhere(header, chance)

    return _with_header(content, change)


def _words(content: bytes, other: bytes, chance: Random) -> bytes:
    """Something in the JSON that stands in the metadata."""

    def change(header: Any) -> Any:
        metadata = header.get("__metadata__", {})
        keys = [key for key in ("cns_manifest", "cns_checkpoint") if key in metadata]
        for key in keys:
            metadata[key] = _as_text(_elsewhere(json.loads(metadata[key]), chance))
        return header

    return _with_header(content, change)


def _shape(content: bytes, other: bytes, chance: Random) -> bytes:
    def change(header: Any) -> Any:
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        entry = chance.choice(tensors)
        if chance.random() < 0.5:
            entry["dtype"] = chance.choice(
                ("F64", "F32", "F16", "BF16", "I8", "U8", "BOOL", "I64", "F8_E4M3", "?")
            )
        else:
            entry["shape"] = chance.choice(([], [0], [2**62, 4], [*entry["shape"], 1], entry["shape"][::-1]))
        return header

    return _with_header(content, change)


def _with_header(content: bytes, change: Callable[[Any], Any]) -> bytes:
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header = change(json.loads(content[8 : 8 + length]))
    except (struct.error, ValueError, TypeError, LookupError, AttributeError):
        return content  # an earlier change has left no header
    text = _as_text(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def _as_text(value: Any) -> str:
    return json.dumps(value).replace("Infinity", "1e999")


def _elsewhere(value: Any, chance: Random) -> Any:
    """The same with an odd value somewhere in it, or something missing or doubled."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        if chance.random() < 0.1:
            return {name: entry for name, entry in value.items() if name != key}
        if chance.random() < 0.1:
            return {**value, chance.choice(("", "surprise", key + "x")): value[key]}
        return {**value, key: _elsewhere(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        at = chance.randrange(len(value))
        if chance.random() < 0.2:
            return value[:at] + value[at + 1 :] if chance.random() < 0.5 else value + value[at : at + 1]
        return [*value[:at], _elsewhere(value[at], chance), *value[at + 1 :]]
    return chance.choice(_ODD)


_CHANGES = (_cut, _flip, _overwrite, _insert, _graft, _length, _header, _words, _words, _words, _shape)
