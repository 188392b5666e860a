"""`ConceptMemory`: the ordered record of what has been learned on one base model, from which any stage can
be rebuilt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .masks import NeuronMask
from .projections import ProjectionLayout, flat_weights
from .tokens import TokenVectors

_PIECE = 2**18  # entries


@dataclass(frozen=True)
class BaseModel:
    """Which model a memory belongs to: its family (`SD1`, `SD2`, `SDXL`, ...) and a hash over K/V and token
    table(s).
    """

    family: str
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.family} model {self.fingerprint[:12]}"


def fingerprint(
    layout: ProjectionLayout, weights: Mapping[str, Tensor], token_tables: Mapping[str, Tensor]
) -> str:
    """sha256 over all K/V weights and token tables, each cast to float16, so that the precision in which the
    host happens to hold one checkpoint does not matter."""
    digest = hashlib.sha256(repr(layout).encode())
    for _, weight in flat_weights(weights, layout):
        digest.update(_half_bytes(weight))
    for name in sorted(token_tables):
        digest.update(name.encode())
        digest.update(_half_bytes(token_tables[name]))
    return digest.hexdigest()


def _half_bytes(tensor: Tensor) -> memoryview:
    return memoryview(np.ascontiguousarray(tensor.detach().to("cpu", torch.float16).numpy())).cast("B")


@dataclass(frozen=True, eq=False)
class LearnedConcept:
    """One learned concept.

    values: float16 `(mask.count(),)`, W - W_0 on the mask right after it was learned, in flat order;
    token_vectors: encoder -> float32 `(dim,)`; losses: float32 `(steps, 3)`: diffusion, prior,
    regularisation; learned_at: ISO 8601, UTC.
    """

    name: str
    token: str
    class_word: str
    kind: str
    mask: NeuronMask
    values: Tensor
    token_vectors: TokenVectors
    settings: dict[str, Any]
    losses: Tensor
    learned_at: str

    def __post_init__(self) -> None:
        if self.values.dtype != torch.float16 or self.values.shape != (self.mask.count(),):
            raise ValueError(
                f"Concept {self.name!r} has {self.values.dtype} values of shape {tuple(self.values.shape)}; "
                "its mask selects "
                f"{self.mask.count():,} entries, so float16 of shape ({self.mask.count()},) was expected."
            )
        if not bool(torch.isfinite(self.values).all()):
            raise ValueError(f"Concept {self.name!r} holds values that are not finite.")


@dataclass(frozen=True, eq=False)
class ConceptMemory:
    """Concepts in the order in which they were learned. Every change gives a new memory."""

    base: BaseModel
    layout: ProjectionLayout
    concepts: tuple[LearnedConcept, ...] = field(default=())

    def __post_init__(self) -> None:
        for concept in self.concepts:
            if concept.mask.layout != self.layout:
                raise ValueError(
                    f"The mask of concept {concept.name!r} belongs to another model than its memory."
                )
        for what, taken in (
            ("name", [c.name.lower() for c in self.concepts]),
            ("token", [c.token for c in self.concepts]),
        ):
            if len(set(taken)) != len(taken):
                raise ValueError(
                    f"Two concepts of this memory share a {what}; names and tokens must be unique."
                )

    def __len__(self) -> int:
        return len(self.concepts)

    def names(self) -> list[str]:
        return [c.name for c in self.concepts]

    def concept(self, name: str) -> LearnedConcept:
        """By name or token."""
        for concept in self.concepts:
            if name.lower() in (concept.name.lower(), concept.token):
                return concept
        raise ValueError(
            f"No concept {name!r} in this memory; it holds: {', '.join(self.names()) or 'none'}."
        )

    def stage(self, which: str | int) -> ConceptMemory:
        """The memory as it stood after that concept (name, token, or 1-based number; 0 = before the
        first).
        """
        if isinstance(which, str) and not which.strip().lstrip("-").isdigit():
            count = self.concepts.index(self.concept(which.strip())) + 1
        else:
            count = int(which)
        if not 0 <= count <= len(self):
            raise ValueError(
                f"Stage {count} is out of range: this memory has {len(self)} concepts "
                f"({', '.join(self.names())})."
            )
        return replace(self, concepts=self.concepts[:count])

    def union_mask(self) -> NeuronMask:
        """Entries that any concept has moved (OR over s of M_con(s))."""
        union = NeuronMask.empty(self.layout)
        for concept in self.concepts:
            union = union | concept.mask
        return union

    def values(self) -> Tensor:
        """W_t - W_0 over all of K/V, float16 `(layout.total,)`: each entry as the latest concept that moved
        it left it, 0 where none did.
        """
        flat = np.zeros(self.layout.total, dtype=np.float16)
        if self.concepts:
            cores = torch.get_num_threads()
            ends = [self.layout.total * core // cores for core in range(cores + 1)]
            with ThreadPoolExecutor(cores) as pool:
                list(pool.map(lambda part: self._fill(flat, *part), pairwise(ends)))
        return torch.from_numpy(flat)

    def _fill(self, flat: np.ndarray, begin: int, end: int) -> None:
        """A stretch of `flat`, in pieces that stay in a core's cache."""
        done = [concept.mask.count_before(begin) for concept in self.concepts]
        for first in range(begin, end, _PIECE):
            last = min(first + _PIECE, end)
            for i, concept in enumerate(self.concepts):
                where = np.flatnonzero(concept.mask.part(first, last))
                flat[first:last][where] = concept.values[done[i] : done[i] + len(where)].numpy()
                done[i] += len(where)

    def token_vectors(self) -> dict[str, TokenVectors]:
        """token -> encoder -> vector `(dim,)`."""
        return {c.token: c.token_vectors for c in self.concepts}

    def class_words(self) -> dict[str, str]:
        """token -> class word."""
        return {c.token: c.class_word for c in self.concepts}

    def with_learned(self, concept: LearnedConcept) -> ConceptMemory:
        return replace(self, concepts=(*self.concepts, concept))

    def without(self, name: str) -> ConceptMemory:
        """Forget one concept: its token goes, and entries that only it moved return to the base. What later
        concepts left stays.
        """
        gone = self.concept(name)
        return replace(self, concepts=tuple(c for c in self.concepts if c is not gone))

    def check_base(self, base: BaseModel) -> None:
        """ValueError naming both when the memory was made on another base model."""
        if base != self.base:
            raise ValueError(
                f"This memory ({', '.join(self.names()) or 'no concepts'}) was made on {self.base}, but the "
                f"loaded model is {base}. "
                "Load the checkpoint it was made on, or start a new memory for this one."
            )

    def digest(self) -> str:
        """sha256 over everything that decides what is drawn."""
        digest = hashlib.sha256(self.base.fingerprint.encode())
        for c in self.concepts:
            digest.update(f"{c.name}\0{c.token}\0{c.class_word}\0{c.kind}\0{c.mask.digest()}".encode())
            digest.update(c.values.numpy().tobytes())
            for encoder in sorted(c.token_vectors):
                digest.update(encoder.encode() + c.token_vectors[encoder].float().numpy().tobytes())
        return digest.hexdigest()

    def summary(self) -> str:
        """One line per concept, for people."""
        lines = [f"{len(self)} concept(s) on {self.base}"]
        for i, c in enumerate(self.concepts, 1):
            lines.append(
                f"{i}. `{c.token}` {c.name} ({c.kind}, {c.class_word}), {c.mask.count():,} neurons, "
                f"{c.learned_at}"
            )
        return "\n".join(lines)
