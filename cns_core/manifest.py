"""What a memory's file says of itself in words: its base, its projections and its concepts, as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from typing import Any

from .captions import MAX_CAPTION, template_captions
from .concept import ERASURE, MAX_CAPTIONS, MAX_TOKEN, check_class_word, check_kind, check_name, check_token
from .projections import ProjectionLayout
from .tensor_file import read_json
from .values import line_of_text, shown, whole_number

FORMAT_VERSION = 4  # 3 had float16 as it is, 2 no deflated masks, 1 only one method
_MAX_CONCEPTS = 1024
_MAX_PROJECTIONS = 4096
_MAX_SIDE = 2**20  # rows or columns of a projection
_MAX_SETTINGS = 1_000_000  # bytes; prompts to keep are among them
_MAX_LISTED = 64  # losses, text encoders
_NAME = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)
_PROJECTION = re.compile(r"[A-Za-z_][\w.]{0,199}", re.ASCII)
_FINGERPRINT = re.compile(r"[0-9a-f]{1,128}")
_KEYS = {"version", "base", "projections", "concepts"}


@dataclass(frozen=True)
class ConceptEntry:
    """One learned concept, or something erased, without its tensors; see `memory.LearnedConcept`.

    losses, encoders: the names of what the tensors hold, in order.
    weights: those that it was learned on, where they are not the memory's projections.
    """

    name: str
    token: str
    class_word: str
    kind: str
    captions: tuple[str, ...]
    method: str
    settings: dict[str, Any]
    losses: tuple[str, ...]
    learned_at: str
    encoders: tuple[str, ...]
    weights: ProjectionLayout | None = None

    def as_table(self) -> dict[str, Any]:
        """What `read` reads."""
        table = {f.name: getattr(self, f.name) for f in fields(self)}
        if self.weights is None:
            del table["weights"]
        else:
            table["weights"] = _rows(self.weights)
        return table

    @classmethod
    def read(cls, entry: Any) -> ConceptEntry:
        """From JSON. ValueError for anything that no concept could have written."""
        keys = {f.name for f in fields(cls)}
        if not isinstance(entry, dict) or set(entry) | {"captions", "weights"} != keys:
            seen = sorted(entry) if isinstance(entry, dict) else entry
            raise ValueError(f"it has the manifest keys {shown(seen, 200)}; expected {sorted(keys)}")
        name, kind = line_of_text(entry["name"], "its name", 128), line_of_text(entry["kind"], "its kind", 32)
        check_name(name)
        if kind == ERASURE:
            token, word, captions = _of_erasure(entry, name)
        else:
            token, word, captions = _of_learned(entry, kind)
        if not isinstance(entry["settings"], dict):
            raise ValueError(f"its settings are {shown(entry['settings'])}, expected a table")
        if (size := len(json.dumps(entry["settings"], ensure_ascii=False).encode())) > _MAX_SETTINGS:
            raise ValueError(f"its settings take {size:,} bytes, expected at most {_MAX_SETTINGS:,}")
        return cls(
            name,
            token,
            word,
            kind,
            captions,
            line_of_text(entry["method"], "its method", 64),
            entry["settings"],
            _names(entry["losses"], "its losses"),
            line_of_text(entry["learned_at"], "its date", 64, may_be_empty=True),
            _names(entry["encoders"], "its text encoders"),
            _layout(entry["weights"], "weight") if "weights" in entry else None,
        )


@dataclass(frozen=True)
class Manifest:
    """All of a file's words."""

    family: str
    fingerprint: str
    layout: ProjectionLayout
    concepts: tuple[ConceptEntry, ...]

    def as_json(self) -> str:
        return json.dumps(
            {
                "version": FORMAT_VERSION,
                "base": {"family": self.family, "fingerprint": self.fingerprint},
                "projections": _rows(self.layout),
                "concepts": [concept.as_table() for concept in self.concepts],
            }
        )


def read_manifest(text: str) -> tuple[Manifest, int]:
    """A manifest and the version of its file. ValueError for anything that this pack could not have
    written.
    """
    manifest = read_json(text)
    version = manifest.get("version") if isinstance(manifest, dict) else None
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise ValueError(
            f"it has format version {shown(version)}; this pack reads up to version {FORMAT_VERSION}. "
            "Update the pack"
        )
    if set(manifest) != _KEYS:
        raise ValueError(f"it has the manifest keys {shown(sorted(manifest), 200)}; expected {sorted(_KEYS)}")
    base, concepts = manifest["base"], manifest["concepts"]
    if not isinstance(base, dict) or set(base) != {"family", "fingerprint"}:
        raise ValueError(f"its base model is {shown(base)}; expected family and fingerprint")
    family = line_of_text(base["family"], "its model family", 32)
    if not _FINGERPRINT.fullmatch(line_of_text(base["fingerprint"], "its base model's fingerprint", 128)):
        raise ValueError(
            f"its base model's fingerprint is {shown(base['fingerprint'])}; expected hexadecimal digits"
        )
    if not isinstance(concepts, list) or len(concepts) > _MAX_CONCEPTS:
        seen = f"{len(concepts):,} concepts" if isinstance(concepts, list) else shown(concepts)
        raise ValueError(f"it has {seen}; expected a list of at most {_MAX_CONCEPTS:,}")
    if version == 1:
        concepts = [_of_version_1(entry) for entry in concepts]
    entries = []
    for number, entry in enumerate(concepts, 1):
        try:
            entries.append(ConceptEntry.read(entry))
        except ValueError as error:
            raise ValueError(f"concept {number}: {error}") from error
    layout = _layout(manifest["projections"], "projection")
    if len({width for _, width in layout.shapes}) != 1:
        raise ValueError("its projections read text features of several widths; expected one")
    return Manifest(family, base["fingerprint"], layout, tuple(entries)), version


def _of_version_1(entry: Any) -> Any:
    """Version 1 knew one method and three losses."""
    if not isinstance(entry, dict):
        return entry
    kept = {key: value for key, value in entry.items() if key != "neurons"}
    return kept | {"method": "cns", "losses": ["diffusion", "prior", "L_reg"]}


def _rows(layout: ProjectionLayout) -> list[list[Any]]:
    return [[name, *shape] for name, shape, _ in layout.slices()]


def _layout(rows: Any, what: str) -> ProjectionLayout:
    """The counterpart of `_rows`; what: a matrix is called."""
    if not isinstance(rows, list) or not 0 < len(rows) <= _MAX_PROJECTIONS:
        raise ValueError(f"its {what}s are {shown(rows)}; expected a list of 1 to {_MAX_PROJECTIONS:,}")
    names: list[str] = []
    shapes: list[tuple[int, int]] = []
    for row in rows:
        if not isinstance(row, list) or len(row) != 3:
            raise ValueError(f"a {what} of it is {shown(row)}; expected a name, rows and columns")
        names += _names(row[:1], f"a {what}'s name", _PROJECTION)
        out, width = (whole_number(side, f"a side of {row[0]}", 1, _MAX_SIDE) for side in row[1:])
        shapes.append((out, width))
    return ProjectionLayout(tuple(names), tuple(shapes))


def _of_learned(entry: dict[str, Any], kind: str) -> tuple[str, str, tuple[str, ...]]:
    """Token, class word and captions of a learned concept."""
    token = line_of_text(entry["token"], "its token", MAX_TOKEN)
    if check_token(token) != token:
        raise ValueError(f"its token {token!r} is not written as tokens are")
    word = line_of_text(entry["class_word"], "its class word", 128)
    check_class_word(word)
    check_kind(kind)
    # Files of version 1, and the first ones of version 2, have no captions.
    if "captions" not in entry:
        return token, word, template_captions(kind, token)
    return token, word, _captions(entry["captions"], token)


def _of_erasure(entry: dict[str, Any], name: str) -> tuple[str, str, tuple[str, ...]]:
    """The same of something erased: only captions, which name what is gone. It goes by its name, so that this
    must not read like a token.
    """
    for what, none in (("token", ""), ("class_word", ""), ("encoders", [])):
        if entry[what] != none:
            raise ValueError(f"it is an erasure, but its {what} is {shown(entry[what])}; expected none")
    if "<" in name or ">" in name:
        raise ValueError(f"it is an erasure named {name!r}; expected a name without < or >")
    return "", "", _captions(entry.get("captions"), "")


def _captions(captions: Any, token: str) -> tuple[str, ...]:
    if not isinstance(captions, list) or not 0 < len(captions) <= MAX_CAPTIONS:
        raise ValueError(f"it has no captions, or more than {MAX_CAPTIONS}: {shown(captions)}")
    for caption in captions:
        if token not in line_of_text(caption, "a caption", MAX_CAPTION):
            raise ValueError(f"it has a caption without its token {token!r}: {shown(caption)}")
    return tuple(captions)


def _names(names: Any, what: str, pattern: re.Pattern[str] = _NAME) -> tuple[str, ...]:
    if not isinstance(names, list) or len(names) > _MAX_LISTED or len({*map(str, names)}) != len(names):
        raise ValueError(
            f"{what} are {shown(names)}; expected a list of at most {_MAX_LISTED} different names"
        )
    for name in names:
        if not isinstance(name, str) or not pattern.fullmatch(name):
            raise ValueError(f"{what}: {shown(name)} is no name")
    return tuple(names)
