"""A concept memory as one `.safetensors` file, never a pickle.

Tensors: `base.values` and `base.rounding`, a sample of the base model's weights (`identity.Sample`);
per concept i counted from 0: `concepts.<i>.change.<name>` as its method keeps them,
`concepts.<i>.losses` float32 `(steps, names)`, `concepts.<i>.token.<encoder>` float32 `(1, dim)`.
The metadata holds the manifest (`cns_manifest`, JSON, versioned)
and the keys that other tools read (`modelspec.*`, `ss_*`).
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from .atomic_write import write_atomically
from .captions import template_captions
from .concept import KINDS, check_token
from .families import FAMILIES
from .identity import ModelIdentity, Sample
from .memory import ConceptMemory, LearnedConcept
from .methods import METHODS
from .projections import ProjectionLayout

FORMAT_VERSION = 2
# A header is a few kilobytes per concept; anything near this is not one of ours.
_MAX_HEADER = 8 * 2**20
_MAX_ENTRIES = 2**32
_MANIFEST_KEYS = {"version", "base", "projections", "concepts"}
_CONCEPT_KEYS = {
    *("name", "token", "class_word", "kind", "captions", "method"),
    *("settings", "losses", "learned_at", "encoders"),
}

Tensors = dict[str, torch.Tensor]


class MemoryFileError(ValueError):
    """A file that is no concept memory, or a damaged one."""


def save_memory(path: Path, memory: ConceptMemory) -> None:
    """Write atomically. OSError, with what to do, when the disk is full or not writable;
    the old file then stays.
    """
    sample = memory.base.sample
    tensors = {} if sample is None else {f"base.{name}": tensor for name, tensor in sample.tensors().items()}
    for i, concept in enumerate(memory.concepts):
        for name, tensor in concept.change.tensors().items():
            tensors[f"concepts.{i}.change.{name}"] = tensor.contiguous()
        columns = [losses.float() for losses in concept.losses.values()]
        tensors[f"concepts.{i}.losses"] = torch.stack(columns, dim=1) if columns else torch.empty(0, 0)
        for encoder, vector in concept.token_vectors.items():
            tensors[f"concepts.{i}.token.{encoder}"] = vector.float().reshape(1, -1).contiguous()
    write_atomically(path, save(tensors, _metadata(path, memory)))


def _metadata(path: Path, memory: ConceptMemory) -> dict[str, str]:
    manifest = {
        "version": FORMAT_VERSION,
        "base": {"family": memory.base.family, "fingerprint": memory.base.fingerprint},
        "projections": [[name, *shape] for name, shape, _ in memory.layout.slices()],
        "concepts": [
            {
                "name": c.name,
                "token": c.token,
                "class_word": c.class_word,
                "kind": c.kind,
                "captions": list(c.captions),
                "method": c.method,
                "settings": c.settings,
                "losses": list(c.losses),
                "learned_at": c.learned_at,
                "encoders": sorted(c.token_vectors),
            }
            for c in memory.concepts
        ],
    }
    name = memory.base.family
    family = FAMILIES.get(name)
    return {
        "format": "pt",
        "cns_manifest": json.dumps(manifest),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": path.stem,
        "modelspec.architecture": f"{family.architecture if family else name}/concept-memory",
        "modelspec.implementation": "ComfyUI-CNS",
        "modelspec.date": memory.concepts[-1].learned_at if memory.concepts else "",
        "modelspec.trigger_phrase": ", ".join(c.token for c in memory.concepts),
        "ss_base_model_version": family.base_version if family else name,
        "ss_output_name": path.stem,
        "ss_tag_frequency": json.dumps({c.name: {c.token: 1, c.class_word: 1} for c in memory.concepts}),
    }


def load_memory(path: Path) -> ConceptMemory:
    """Read and check a memory file. MemoryFileError for anything truncated, foreign or inconsistent; nothing
    is ever executed.
    """
    try:
        content = _read(path)
        tensors = load(content)
        manifest = _manifest(path, content)
        if manifest["version"] == 1:
            _upgrade_from_1(manifest, tensors)
        _check_keys(path, manifest)
        layout = _layout(path, manifest)
        base = _base(path, tensors, manifest["base"])
        concepts = [_concept(path, tensors, layout, i, e) for i, e in enumerate(manifest["concepts"])]
        if tensors:
            raise MemoryFileError(f"{path.name} holds unexpected tensors: {', '.join(sorted(tensors)[:5])}.")
        return ConceptMemory(base, layout, tuple(concepts))
    except MemoryFileError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise MemoryFileError(
            f"{path.name} is damaged or no concept memory: {type(error).__name__}: {error}"
        ) from error


def _read(path: Path) -> bytes:
    """The file, once its own account of its header has been found credible."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise MemoryFileError(
                f"{path.name} is empty or truncated ({size} bytes); it is no concept memory."
            )
        (length,) = struct.unpack("<Q", start)
        if length > size - 8:
            raise MemoryFileError(
                f"{path.name} is truncated or not a safetensors file: "
                f"header of {length} bytes, file of {size}."
            )
        if length > _MAX_HEADER:
            raise MemoryFileError(
                f"{path.name} has a header of {length:,} bytes; "
                f"a concept memory's stays below {_MAX_HEADER:,}."
            )
        return start + file.read()


def _manifest(path: Path, content: bytes) -> dict[str, Any]:
    """The manifest of a file that the safetensors library has read without complaint."""
    (length,) = struct.unpack("<Q", content[:8])
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    if "cns_manifest" not in metadata:
        raise MemoryFileError(
            f"{path.name} is a safetensors file but no concept memory (a LoRA or a checkpoint, perhaps). "
            "Load it with the node for its kind; concept memories come from SaveConceptMemory."
        )
    manifest = json.loads(metadata["cns_manifest"])
    version = manifest.get("version") if isinstance(manifest, dict) else None
    if version not in (1, FORMAT_VERSION):
        raise MemoryFileError(
            f"{path.name} has format version {version}; this pack reads up to version {FORMAT_VERSION}. "
            "Update the pack."
        )
    return dict(manifest)


def _upgrade_from_1(manifest: dict[str, Any], tensors: Tensors) -> None:
    """Version 1 knew one method and three losses, and named their tensors without a word for either."""
    for i, entry in enumerate(manifest["concepts"]):
        del entry["neurons"]
        entry |= {"method": "cns", "losses": ["diffusion", "prior", "L_reg"]}
        for name in ("mask", "values"):
            tensors[f"concepts.{i}.change.{name}"] = tensors.pop(f"concepts.{i}.{name}")


def _check_keys(path: Path, manifest: dict[str, Any]) -> None:
    if unknown := sorted(set(manifest) - _MANIFEST_KEYS):
        raise MemoryFileError(f"{path.name} has unknown manifest keys: {', '.join(unknown)}.")
    for i, entry in enumerate(manifest["concepts"], 1):
        if not isinstance(entry, dict) or set(entry) | {"captions"} != _CONCEPT_KEYS:
            raise MemoryFileError(
                f"{path.name}: concept {i} has the manifest keys {sorted(entry)}; expected "
                f"{sorted(_CONCEPT_KEYS)}."
            )


def _layout(path: Path, manifest: dict[str, Any]) -> ProjectionLayout:
    rows = manifest["projections"]
    if any(not isinstance(n, int) or n < 1 for row in rows for n in row[1:]):
        raise MemoryFileError(f"{path.name} lists projections of impossible shape.")
    layout = ProjectionLayout(tuple(str(r[0]) for r in rows), tuple((r[1], r[2]) for r in rows))
    if not 0 < layout.total <= _MAX_ENTRIES:
        raise MemoryFileError(
            f"{path.name} claims {layout.total:,} K/V entries; no supported model has that many."
        )
    return layout


def _base(path: Path, tensors: Tensors, about: dict[str, Any]) -> ModelIdentity:
    """What the memory was made on; what it takes of the tensors is removed from them."""
    found = {name: tensors.pop(f"base.{name}") for name in Sample.NAMES if f"base.{name}" in tensors}
    sample = None  # files of before
    if found:
        try:
            sample = Sample.read(found)
        except ValueError as error:
            raise MemoryFileError(f"{path.name} is damaged: {error}.") from error
    return ModelIdentity(str(about["family"]), str(about["fingerprint"]), sample)


def _concept(
    path: Path, tensors: Tensors, layout: ProjectionLayout, i: int, entry: dict[str, Any]
) -> LearnedConcept:
    """One concept; what it takes of the tensors is removed from them."""
    where = f"{path.name}: concept {i + 1}"
    if entry["kind"] not in KINDS or not entry["name"] or not entry["class_word"]:
        raise MemoryFileError(f"{where} has an impossible name, class word or kind ({entry['kind']!r}).")
    if entry["method"] not in METHODS:
        raise MemoryFileError(
            f"{where} was learned by the method {entry['method']!r}; this pack knows {', '.join(METHODS)}. "
            "Update the pack."
        )
    vectors = {str(e): _float32(path, tensors, f"concepts.{i}.token.{e}", 1) for e in entry["encoders"]}
    if not vectors or not all(bool(torch.isfinite(v).all()) for v in vectors.values()):
        raise MemoryFileError(f"{where} has no token vectors or some that are not finite.")
    losses = _float32(path, tensors, f"concepts.{i}.losses", None, len(entry["losses"]))
    prefix = f"concepts.{i}.change."
    mine = {n.removeprefix(prefix): tensors.pop(n) for n in sorted(tensors) if n.startswith(prefix)}
    try:
        change = METHODS[entry["method"]].read(layout, mine)
    except ValueError as error:
        raise MemoryFileError(f"{where}, {str(entry['name'])!r}, is damaged: {error}") from error
    return LearnedConcept(
        name=str(entry["name"]),
        token=check_token(str(entry["token"])),
        class_word=str(entry["class_word"]),
        kind=str(entry["kind"]),
        captions=_captions(where, entry),
        method=entry["method"],
        change=change,
        token_vectors={e: v.reshape(-1) for e, v in vectors.items()},
        settings=dict(entry["settings"]),
        losses={str(name): losses[:, column] for column, name in enumerate(entry["losses"])},
        learned_at=str(entry["learned_at"]),
    )


def _captions(where: str, entry: dict[str, Any]) -> tuple[str, ...]:
    if "captions" not in entry:  # files of version 1, and the first ones of version 2
        return template_captions(entry["kind"], entry["token"])
    captions = entry["captions"]
    if (
        not isinstance(captions, list)
        or not captions
        or not all(isinstance(caption, str) and entry["token"] in caption for caption in captions)
    ):
        raise MemoryFileError(f"{where} has no captions, or some without its token {entry['token']!r}.")
    return tuple(captions)


def _float32(
    path: Path, tensors: Tensors, name: str, rows: int | None, columns: int | None = None
) -> torch.Tensor:
    """Take a float32 matrix out of the tensors; None stands for any number of rows or columns."""
    if name not in tensors:
        raise MemoryFileError(f"{path.name} lacks the tensor {name}.")
    tensor = tensors.pop(name)
    shape = tuple(tensor.shape)
    fits = len(shape) == 2 and rows in (None, shape[0]) and columns in (None, shape[1])
    if tensor.dtype != torch.float32 or not fits:
        raise MemoryFileError(
            f"{path.name}: {name} is {tensor.dtype} {list(shape)}; expected float32 [{rows or 'any'}, "
            f"{columns or 'any'}]."
        )
    return tensor


def file_digest(path: Path) -> str:
    """sha256 of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()
