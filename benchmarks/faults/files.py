"""Files that somebody or something has changed: refused by the promised error, or sound."""

from __future__ import annotations

import contextlib
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import save

from cns_core.checkpoint import CheckpointError, TrainerState, load_state
from cns_core.memory import ConceptMemory
from cns_core.memory_file import MemoryFileError, load_memory, save_memory
from cns_core.thumbnails import MAX_BYTES

from .mutations import mutated
from .samples import RUN_KEY, checkpoint_file, many_concepts, memory_file

_MAX_MESSAGE = 2_000  # characters


@dataclass
class Fuzzed:
    """What came of mutated files of one kind.

    wrong: errors of another type than the promised one, or endless ones; inconsistent: loaded, though not
    sound; slowest: seconds; grown: bytes of memory beyond what the process had before; largest: bytes of a
    file.
    """

    tried: int = 0
    loaded: int = 0
    wrong: list[str] = field(default_factory=list)
    inconsistent: list[str] = field(default_factory=list)
    slowest: float = 0.0
    grown: int = 0
    largest: int = 0


def fuzzed_memories(count: int, seed: int) -> Fuzzed:
    with tempfile.TemporaryDirectory() as folder:
        sound = [memory_file(Path(folder), number) for number in range(4)]
        return _fuzzed(sound, count, seed, load_memory, MemoryFileError, memory_fault)


def fuzzed_checkpoints(count: int, seed: int) -> Fuzzed:
    def load(path: Path) -> TrainerState:
        return load_state(path, RUN_KEY)

    with tempfile.TemporaryDirectory() as folder:
        sound = [checkpoint_file(Path(folder), number) for number in range(4)]
        return _fuzzed(sound, count, seed, load, CheckpointError, checkpoint_fault)


def _fuzzed(
    sound: list[bytes],
    count: int,
    seed: int,
    load: Callable[[Path], Any],
    promised: type[Exception],
    fault: Callable[[Any], str | None],
) -> Fuzzed:
    found, chance = Fuzzed(), Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        before = _peak()
        for number in range(count):
            content = mutated(chance.choice(sound), chance.choice(sound), chance)
            path.write_bytes(content)
            found.tried, found.largest = number + 1, max(found.largest, len(content))
            begin = time.perf_counter()
            try:
                loaded = load(path)
            except promised as error:
                if len(str(error)) > _MAX_MESSAGE:
                    found.wrong.append(f"{number}: a message of {len(str(error)):,} characters")
            except Exception as error:
                found.wrong.append(f"{number}: {type(error).__name__}: {str(error)[:120]}")
            else:
                found.loaded += 1
                if (why := fault(loaded)) is not None:
                    found.inconsistent.append(f"{number}: {why}")
            found.slowest = max(found.slowest, time.perf_counter() - begin)
        found.grown = _peak() - before
    return found


def memory_fault(memory: ConceptMemory) -> str | None:
    """What is not sound about a memory, or None."""
    for concept in memory.concepts:
        words = (concept.name, concept.token, concept.class_word, concept.kind, *concept.captions)
        encoders, losses = concept.token_vectors, concept.losses
        if not all(isinstance(w, str) and w.strip() and w.isprintable() and len(w) < 3_000 for w in words):
            return f"odd words: {[str(w)[:40] for w in words]!r}"
        if not all(concept.token in caption for caption in concept.captions):
            return "a caption without its token"
        if not all(isinstance(name, str) and name.isidentifier() for name in (*encoders, *losses)):
            return f"odd names: {[*encoders, *losses]!r}"
        tensors = [*encoders.values(), *losses.values(), *concept.change.tensors().values()]
        if not all(bool(torch.isfinite(t.float()).all()) for t in tensors):
            return "numbers that are not finite"
        if len(concept.thumbnail) > MAX_BYTES:
            return f"a thumbnail of {len(concept.thumbnail):,} bytes"
    if len(memory.summary().encode()) > 10_000:
        return "a summary without end"
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "again.safetensors"
        save_memory(again, memory)
        return None if load_memory(again).digest() == memory.digest() else "saved again, it is another one"


def checkpoint_fault(state: TrainerState) -> str | None:
    tensors = [*state.adaptation.values(), *state.token_vectors.values(), *state.optimizer.values()]
    if not all(bool(torch.isfinite(t).all()) for t in tensors):
        return "numbers that are not finite"
    return None if len({len(v) for v in state.losses.values()}) == 1 else "losses of several lengths"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def slowest_large_file(seed: int, count: int = 20) -> tuple[float, int]:
    """Seconds for the slowest of some files of many small concepts or of nothing but names, and the bytes of
    the largest.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        save_memory(path, many_concepts(seed, 1024))
        whole, chance, slowest, largest = path.read_bytes(), Random(seed), 0.0, 0
        crowd = save({f"concepts.0.change.{number}": torch.zeros(0) for number in range(80_000)})
        for number in range(count):
            content = (
                (whole, crowd, crowd + bytes(2**22))[number] if number < 3 else mutated(whole, crowd, chance)
            )
            path.write_bytes(content)
            largest = max(largest, len(content))
            begin = time.perf_counter()
            with contextlib.suppress(MemoryFileError):
                load_memory(path)
            slowest = max(slowest, time.perf_counter() - begin)
    return slowest, largest
