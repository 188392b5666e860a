"""A concept memory as one `.safetensors` file, never a pickle.

Tensors, per concept i counted from 0: `concepts.<i>.mask` uint8 bits over the flat layout,
`concepts.<i>.values` float16, `concepts.<i>.losses` float32 `(steps, 3)`, `concepts.<i>.token.<encoder>`
float32 `(1, dim)`. The metadata holds the manifest (`cns_manifest`, JSON, versioned) and the keys that other
tools read (`modelspec.*`, `ss_*`).
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from .atomic_write import write_atomically
from .concept import KINDS, check_token
from .masks import NeuronMask
from .memory import BaseModel, ConceptMemory, LearnedConcept
from .projections import ProjectionLayout

FORMAT_VERSION = 1
# A header is a few kilobytes per concept; anything near this is not one of ours.
_MAX_HEADER = 8 * 2**20
_MAX_ENTRIES = 2**32
_CONCEPT_KEYS = {"name", "token", "class_word", "kind", "settings", "learned_at", "neurons", "encoders"}
_ARCHITECTURE = {
    "SD1": "stable-diffusion-v1",
    "SD2": "stable-diffusion-v2",
    "SDXL": "stable-diffusion-xl-v1-base",
}
_SS_BASE = {"SD1": "sd_v1", "SD2": "sd_v2", "SDXL": "sdxl_base_v1-0"}


class MemoryFileError(ValueError):
    """A file that is no concept memory, or a damaged one."""


def save_memory(path: Path, memory: ConceptMemory) -> None:
    """Write atomically. OSError, with what to do, when the disk is full or not writable; the old file then
    stays.
    """
    tensors: dict[str, torch.Tensor] = {}
    for i, concept in enumerate(memory.concepts):
        tensors[f"concepts.{i}.mask"] = torch.from_numpy(concept.mask.bits.copy())
        tensors[f"concepts.{i}.values"] = concept.values.contiguous()
        tensors[f"concepts.{i}.losses"] = concept.losses.float().reshape(-1, 3).contiguous()
        for encoder, vector in concept.token_vectors.items():
            tensors[f"concepts.{i}.token.{encoder}"] = vector.float().reshape(1, -1).contiguous()
    write_atomically(path, save(tensors, _metadata(path, memory)))


def _metadata(path: Path, memory: ConceptMemory) -> dict[str, str]:
    manifest = {
        "version": FORMAT_VERSION,
        "base": asdict(memory.base),
        "projections": [[name, *shape] for name, shape, _ in memory.layout.slices()],
        "concepts": [
            {
                "name": c.name,
                "token": c.token,
                "class_word": c.class_word,
                "kind": c.kind,
                "settings": c.settings,
                "learned_at": c.learned_at,
                "neurons": c.mask.count(),
                "encoders": sorted(c.token_vectors),
            }
            for c in memory.concepts
        ],
    }
    family = memory.base.family
    return {
        "format": "pt",
        "cns_manifest": json.dumps(manifest),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": path.stem,
        "modelspec.architecture": f"{_ARCHITECTURE.get(family, family)}/concept-memory",
        "modelspec.implementation": "ComfyUI-CNS",
        "modelspec.date": memory.concepts[-1].learned_at if memory.concepts else "",
        "modelspec.trigger_phrase": ", ".join(c.token for c in memory.concepts),
        "ss_base_model_version": _SS_BASE.get(family, family),
        "ss_output_name": path.stem,
        "ss_tag_frequency": json.dumps({c.name: {c.token: 1, c.class_word: 1} for c in memory.concepts}),
    }


def load_memory(path: Path) -> ConceptMemory:
    """Read and check a memory file. MemoryFileError for anything truncated, foreign or inconsistent; nothing
    is ever executed.
    """
    try:
        names = _check_header(path)
        with safe_open(path, framework="pt") as file:
            manifest = _manifest(path, file.metadata() or {})
            layout = _layout(path, manifest)
            concepts = [
                _concept(path, file, names, layout, i, entry) for i, entry in enumerate(manifest["concepts"])
            ]
        expected = {n for i, e in enumerate(manifest["concepts"]) for n in _tensor_names(i, e)}
        if extra := sorted(set(names) - expected):
            raise MemoryFileError(f"{path.name} holds unexpected tensors: {', '.join(extra[:5])}.")
        base = BaseModel(str(manifest["base"]["family"]), str(manifest["base"]["fingerprint"]))
        return ConceptMemory(base, layout, tuple(concepts))
    except MemoryFileError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise MemoryFileError(
            f"{path.name} is damaged or no concept memory: {type(error).__name__}: {error}"
        ) from error


def _check_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Read the safetensors header by hand before any allocation: tensor name -> (dtype, shape)."""
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
                f"{path.name} is truncated or not a safetensors file: header of {length} bytes, file of "
                f"{size}."
            )
        if length > _MAX_HEADER:
            raise MemoryFileError(
                f"{path.name} has a header of {length:,} bytes; a concept memory's stays below "
                f"{_MAX_HEADER:,}."
            )
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise MemoryFileError(f"{path.name} has no safetensors header.")
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            tensors[name] = (str(entry["dtype"]), tuple(int(n) for n in entry["shape"]))
    return tensors


def _manifest(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    if "cns_manifest" not in metadata:
        raise MemoryFileError(
            f"{path.name} is a safetensors file but no concept memory (a LoRA or a checkpoint, perhaps). "
            "Load it with the node for "
            "its kind; concept memories come from SaveConceptMemory."
        )
    manifest = json.loads(metadata["cns_manifest"])
    version = manifest.get("version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise MemoryFileError(
            f"{path.name} has format version {version}; this pack reads version {FORMAT_VERSION}. Update "
            "the pack."
        )
    if unknown := sorted(set(manifest) - {"version", "base", "projections", "concepts"}):
        raise MemoryFileError(f"{path.name} has unknown manifest keys: {', '.join(unknown)}.")
    return manifest


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


def _tensor_names(i: int, entry: dict[str, Any]) -> list[str]:
    return [
        f"concepts.{i}.{n}" for n in ("mask", "values", "losses", *(f"token.{e}" for e in entry["encoders"]))
    ]


def _concept(
    path: Path,
    file: Any,
    tensors: dict[str, tuple[str, tuple[int, ...]]],
    layout: ProjectionLayout,
    i: int,
    entry: dict[str, Any],
) -> LearnedConcept:
    if not isinstance(entry, dict) or set(entry) != _CONCEPT_KEYS:
        raise MemoryFileError(
            f"{path.name}: concept {i + 1} has the manifest keys {sorted(entry)}; expected "
            f"{sorted(_CONCEPT_KEYS)}."
        )
    if entry["kind"] not in KINDS or not entry["name"] or not entry["class_word"]:
        raise MemoryFileError(
            f"{path.name}: concept {i + 1} has an impossible name, class word or kind ({entry['kind']!r})."
        )
    expected: dict[str, tuple[str, tuple[int | None, ...]]] = {
        f"concepts.{i}.mask": ("U8", ((layout.total + 7) // 8,)),
        f"concepts.{i}.values": ("F16", (entry["neurons"],)),
        f"concepts.{i}.losses": ("F32", (None, 3)),
    } | {f"concepts.{i}.token.{e}": ("F32", (1, None)) for e in entry["encoders"]}
    for name, (dtype, shape) in expected.items():
        if name not in tensors:
            raise MemoryFileError(f"{path.name} lacks the tensor {name}.")
        seen_type, seen = tensors[name]
        fits = len(seen) == len(shape) and all(
            want in (None, have) for want, have in zip(shape, seen, strict=True)
        )
        if seen_type != dtype or not fits:
            raise MemoryFileError(
                f"{path.name}: {name} is {seen_type} {list(seen)}; expected {dtype} {list(shape)}."
            )

    def read(name: str) -> torch.Tensor:
        return file.get_tensor(
            f"concepts.{i}.{name}"
        ).clone()  # not a view into the file, which may be replaced

    vectors = {e: read(f"token.{e}").reshape(-1) for e in entry["encoders"]}
    if not vectors or not all(bool(torch.isfinite(v).all()) for v in vectors.values()):
        raise MemoryFileError(
            f"{path.name}: concept {i + 1} has no token vectors or some that are not finite."
        )
    return LearnedConcept(
        name=str(entry["name"]),
        token=check_token(str(entry["token"])),
        class_word=str(entry["class_word"]),
        kind=str(entry["kind"]),
        mask=NeuronMask(layout, read("mask").numpy()),
        values=read("values"),
        token_vectors=vectors,
        settings=dict(entry["settings"]),
        losses=read("losses"),
        learned_at=str(entry["learned_at"]),
    )


def file_digest(path: Path) -> str:
    """sha256 of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()
