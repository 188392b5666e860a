"""A concept memory as one `.safetensors` file, never a pickle.

Tensors: `base.values` and `base.rounding`, a sample of the base model's weights (`identity.Sample`);
per concept i counted from 0: `concepts.<i>.change.<name>` as its method keeps them, in fewer bytes
(`change_code.py`), `concepts.<i>.losses` float32 `(steps, names)`, `concepts.<i>.token.<encoder>` float32
`(n, dim)`, which what was erased has not, and, where there is one, `concepts.<i>.thumbnail` uint8 `(bytes,)`,
a JPEG.
The metadata holds the manifest (`cns_manifest`, JSON, versioned)
and the keys that other tools read (`modelspec.*`, `ss_*`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import save

from .atomic_write import only_writer, saving, write_atomically
from .change_code import packed, unpacked
from .concept import ERASURE
from .erasures import ERASURES
from .identity import ModelIdentity, Sample
from .joining import JOININGS
from .manifest import ConceptEntry, Manifest, read_manifest
from .memory import ConceptMemory, LearnedConcept
from .method import Change
from .methods import METHODS
from .model_card import model_card
from .projections import ProjectionLayout
from .space.change import OutOfSpace
from .tensor_file import MAX_HEADER, TensorFileError, read_tensors
from .thumbnails import check_thumbnail
from .tokens import MAX_VECTORS, TokenVectors
from .values import shown

_OF_CONCEPT = re.compile(r"concepts\.(0|[1-9][0-9]{0,5})\.(.+)")
_THREADS = 4  # zlib and NumPy leave Python to others meanwhile
_OLD_TENSORS = ("mask", "values")  # of the one method that version 1 knew

Tensors = dict[str, torch.Tensor]


class _Reader(Protocol):
    """What reads changes: a method, a rule of joining, a space of concepts, or a way to erase."""

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, torch.Tensor]) -> Change:
        """See `Method.read`."""
        ...


_KNOWN: Mapping[str, _Reader] = {**METHODS, **JOININGS, OutOfSpace.name: OutOfSpace()}


class MemoryFileError(ValueError):
    """A file that is no concept memory, or a damaged one."""


def save_memory(path: Path, memory: ConceptMemory, more: Mapping[str, str] | None = None) -> None:
    """Write atomically. OSError, with what to do, when the disk is full or not writable;
    the old file then stays. ValueError for a memory of more concepts than a file can hold.

    more: to be written into the file's metadata.
    """
    sample = memory.base.sample
    tensors = {} if sample is None else {f"base.{name}": tensor for name, tensor in sample.tensors().items()}
    with ThreadPoolExecutor(_THREADS) as pool:
        changes = list(pool.map(lambda concept: packed(concept.change.tensors()), memory.concepts))
    for i, (concept, change) in enumerate(zip(memory.concepts, changes, strict=True)):
        for name, tensor in change.items():
            tensors[f"concepts.{i}.change.{name}"] = tensor.contiguous()
        columns = [losses.float() for losses in concept.losses.values()]
        tensors[f"concepts.{i}.losses"] = torch.stack(columns, dim=1) if columns else torch.empty(0, 0)
        for encoder, vectors in concept.token_vectors.items():
            tensors[f"concepts.{i}.token.{encoder}"] = vectors.float().contiguous()
        if concept.thumbnail:
            tensors[f"concepts.{i}.thumbnail"] = torch.frombuffer(
                bytearray(concept.thumbnail), dtype=torch.uint8
            )
    content = save(tensors, {**_metadata(path, memory), **(more or {})})
    if (words := int.from_bytes(content[:8], "little")) > MAX_HEADER:
        raise ValueError(
            f"The words of this memory ({len(memory)} concepts, their captions and settings) take {words:,} "
            f"bytes, more than the {MAX_HEADER:,} that a file may have; start a new memory."
        )
    write_atomically(path, content)


def update_memory(path: Path, memory: ConceptMemory, replace: bool) -> None:
    """Save, and see to it that nothing is lost: no other program writes there between look and writing.

    replace: concepts of the file that the memory does not hold may go.

    Raises:
        ValueError: the file holds other concepts, and they may not go.
        OSError: as from `save_memory`.
    """
    with saving(path), only_writer(path.parent):
        if path.exists() and not replace:
            check_keeps(load_memory(path), memory, path.name)
        save_memory(path, memory)


def check_keeps(old: ConceptMemory, new: ConceptMemory, filename: str) -> None:
    """ValueError when a memory, saved over an old one, would lose a concept of it: also one that was learned
    anew under the same name.
    """
    kept = {concept.digest() for concept in new.concepts}
    lost = [c for c in old.concepts if c.digest() not in kept]
    if lost or not old.base.same_as(new.base):
        raise ValueError(told_lost(filename, old, [c.name for c in lost if c.name in new.names()]))


def told_lost(filename: str, old: ConceptMemory, learned_anew: Sequence[str], how: str = "") -> str:
    """What to say when saving would lose concepts of a file; how: they were learned, in brackets."""
    anew = f"; {', '.join(learned_anew)} would be another one of the same name{how}" if learned_anew else ""
    return (
        f"{filename} already holds other concepts ({', '.join(old.names()) or 'none'}, on {old.base}), "
        f"which this memory does not contain{anew}. "
        "Choose another filename, or switch overwrite on to replace it."
    )


def _metadata(path: Path, memory: ConceptMemory) -> dict[str, str]:
    entries = [
        ConceptEntry(
            name=c.name,
            token=c.token,
            class_word=c.class_word,
            kind=c.kind,
            captions=c.captions,
            method=c.method,
            settings=c.settings,
            losses=tuple(c.losses),
            learned_at=c.learned_at,
            encoders=tuple(sorted(c.token_vectors)),
            weights=None if c.change.layout == memory.layout else c.change.layout,
        )
        for c in memory.concepts
    ]
    manifest = Manifest(memory.base.family, memory.base.fingerprint, memory.layout, tuple(entries))
    return {
        **model_card(memory, path.stem, "concept-memory", [c.token for c in memory.with_tokens()]),
        "cns_manifest": manifest.as_json(),
        "cns_digest": memory.digest(),
    }


def load_memory(path: Path, expected: Mapping[str, str] | None = None) -> ConceptMemory:
    """Read and check a memory file. MemoryFileError for anything truncated, foreign or inconsistent; nothing
    is ever executed.

    expected: what must stand in the file's metadata.
    """
    try:
        file = read_tensors(path)
    except TensorFileError as error:
        raise MemoryFileError(f"{error} It is no concept memory.") from error
    if "cns_manifest" not in file.metadata:
        raise MemoryFileError(
            f"{path.name} is a safetensors file but no concept memory (a LoRA or a checkpoint, perhaps). "
            "Load it with the node for its kind; concept memories come from SaveConceptMemory."
        )
    for key, value in (expected or {}).items():
        if file.metadata.get(key) != value:
            raise MemoryFileError(f"{path.name} is another file: {key} is not {shown(value)} in it.")
    try:
        manifest, version = read_manifest(file.metadata["cns_manifest"])
        memory = _memory(manifest, file.tensors, version)
        # Files of before have no digest.
        if file.metadata.get("cns_digest", digest := memory.digest()) != digest:
            raise ValueError("its tensors are not those that were written")
    except ValueError as error:
        raise MemoryFileError(f"{path.name} is damaged or no concept memory: {error}.") from error
    return memory


def _memory(manifest: Manifest, tensors: Tensors, version: int) -> ConceptMemory:
    """Made of the tensors, which are taken out one by one: read and unpacked, a file is in memory once, not
    twice. ValueError for those that are not the manifest's.
    """
    base = _base(tensors, manifest)
    of_concepts = _by_concept(tensors, len(manifest.concepts))
    numbers = range(1, len(of_concepts) + 1)

    def concept(number: int, entry: ConceptEntry, own: Tensors) -> LearnedConcept:
        if version == 1:
            own = {f"change.{name}" if name in _OLD_TENSORS else name: t for name, t in own.items()}
        try:
            return _concept(own, manifest.layout, entry)
        except ValueError as error:
            raise ValueError(f"concept {number}, {entry.name!r}: {error}") from error

    with ThreadPoolExecutor(_THREADS) as pool:
        concepts = tuple(pool.map(concept, numbers, manifest.concepts, of_concepts))
    return ConceptMemory(base, manifest.layout, concepts)


def _by_concept(tensors: Tensors, count: int) -> list[Tensors]:
    """Take each concept's tensors, by what comes after its number."""
    found: list[Tensors] = [{} for _ in range(count)]
    for name in list(tensors):
        match = _OF_CONCEPT.fullmatch(name)
        if match is None or int(match[1]) >= count:
            raise ValueError(f"it holds unexpected tensors such as {shown(name)}")
        found[int(match[1])][match[2]] = tensors.pop(name)
    return found


def _base(tensors: Tensors, manifest: Manifest) -> ModelIdentity:
    """What the memory was made on; what it takes of the tensors is removed from them."""
    found = {name: tensors.pop(f"base.{name}") for name in Sample.NAMES if f"base.{name}" in tensors}
    sample = Sample.read(found) if found else None  # files of before have none
    return ModelIdentity(manifest.family, manifest.fingerprint, sample)


def _concept(tensors: Tensors, layout: ProjectionLayout, entry: ConceptEntry) -> LearnedConcept:
    """One concept, of all of its tensors, which are taken."""
    known: Mapping[str, _Reader] = ERASURES if entry.kind == ERASURE else _KNOWN
    if entry.method not in known:
        raise ValueError(
            f"it was learned by the method {entry.method!r}; this pack knows {', '.join(known)}. "
            "Update the pack"
        )
    vectors = {} if entry.kind == ERASURE else _token_vectors(tensors, entry.encoders)
    losses = _float32(tensors, "losses", len(entry.losses))
    thumbnail = _thumbnail(tensors)
    strange = sorted(name for name in tensors if not name.startswith("change."))
    if strange:
        raise ValueError(f"it holds unexpected tensors such as {shown(strange[0])}")
    of_change = {name.removeprefix("change."): tensors.pop(name) for name in list(tensors)}
    weights = entry.weights or layout
    change = known[entry.method].read(weights, unpacked(weights, of_change))
    return LearnedConcept(
        name=entry.name,
        token=entry.token,
        class_word=entry.class_word,
        kind=entry.kind,
        captions=entry.captions,
        method=entry.method,
        change=change,
        token_vectors=vectors,
        settings=entry.settings,
        losses={name: losses[:, column] for column, name in enumerate(entry.losses)},
        learned_at=entry.learned_at,
        thumbnail=thumbnail,
    )


def _token_vectors(tensors: Tensors, encoders: Sequence[str]) -> TokenVectors:
    """Take them out of a concept's tensors."""
    if not encoders:
        raise ValueError("it has no token vectors")
    vectors = {encoder: _float32(tensors, f"token.{encoder}") for encoder in encoders}
    counts = {encoder: len(found) for encoder, found in vectors.items()}
    if len({*counts.values()}) > 1 or not 1 <= counts[encoders[0]] <= MAX_VECTORS:
        raise ValueError(
            f"its token stands for {counts} vectors; expected 1 to {MAX_VECTORS}, as many for each encoder"
        )
    return vectors


def _float32(tensors: Tensors, name: str, columns: int | None = None) -> torch.Tensor:
    """Take a finite float32 matrix out of the tensors; None stands for any number of columns."""
    if name not in tensors:
        raise ValueError(f"it lacks the tensor {name}")
    tensor = tensors.pop(name)
    shape = tuple(tensor.shape)
    fits = len(shape) == 2 and columns in (None, shape[1])
    if tensor.dtype != torch.float32 or not fits:
        raise ValueError(
            f"{name} is {tensor.dtype} {list(shape)}; expected float32 [any, {columns or 'any'}]"
        )
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"some of {name} are not finite")
    return tensor


def _thumbnail(tensors: Tensors) -> bytes:
    """Take it out of a concept's tensors; nothing where it has none."""
    tensor = tensors.pop("thumbnail", None)
    if tensor is None:
        return b""
    if tensor.dtype != torch.uint8 or tensor.ndim != 1:
        raise ValueError(f"its thumbnail is {tensor.dtype} {list(tensor.shape)}; expected uint8 [bytes]")
    content = tensor.numpy().tobytes()
    check_thumbnail(content)
    return content


def file_digest(path: Path) -> str:
    """sha256 of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()
