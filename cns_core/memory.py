"""`ConceptMemory`: what has been learned on one base model, in order, so that any stage can be rebuilt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .method import Change, ModelIdentity
from .projections import ProjectionLayout, flat_weights
from .tokens import TokenVectors


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

    method: its name in the registry.
    change: what it left in the projections.
    token_vectors: encoder -> float32 `(dim,)`.
    losses: by name, float32 `(steps,)`.
    learned_at: ISO 8601, UTC.
    """

    name: str
    token: str
    class_word: str
    kind: str
    method: str
    change: Change
    token_vectors: TokenVectors
    settings: dict[str, Any]
    losses: dict[str, Tensor]
    learned_at: str


@dataclass(frozen=True, eq=False)
class ConceptMemory:
    """Concepts in the order in which they were learned. Every change gives a new memory."""

    base: ModelIdentity
    layout: ProjectionLayout
    concepts: tuple[LearnedConcept, ...] = field(default=())

    def __post_init__(self) -> None:
        for concept in self.concepts:
            if concept.change.layout != self.layout:
                raise ValueError(f"Concept {concept.name!r} was learned on another model than its memory's.")
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
        """The memory as it stood after that concept.

        which: its name, token or number, counted from 1; 0 is before the first.
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

    def changes(self) -> dict[str, Tensor]:
        """W_t - W_0 of every projection `(out, text_dim)`, float16, each concept laid on those before it."""
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return dict(zip(self.layout.names, pool.map(self._change, self.layout.names), strict=True))

    def _change(self, name: str) -> Tensor:
        laid = torch.zeros(self.layout.shape(name), dtype=torch.float16)
        for concept in self.concepts:
            laid = concept.change.lay(name, laid)
        return laid

    def moved(self, name: str) -> Tensor:
        """Bool `(out, text_dim)`: the entries of a projection that any concept has moved."""
        moved = torch.zeros(self.layout.shape(name), dtype=torch.bool)
        for concept in self.concepts:
            moved |= concept.change.moved(name)
        return moved

    def token_vectors(self) -> dict[str, TokenVectors]:
        """token -> encoder -> vector `(dim,)`."""
        return {c.token: c.token_vectors for c in self.concepts}

    def class_words(self) -> dict[str, str]:
        """token -> class word."""
        return {c.token: c.class_word for c in self.concepts}

    def with_learned(self, concept: LearnedConcept) -> ConceptMemory:
        return replace(self, concepts=(*self.concepts, concept))

    def without(self, name: str) -> ConceptMemory:
        """Forget one concept: its token goes, and so does what it alone has left.
        What later concepts left stays.
        """
        gone = self.concept(name)
        return replace(self, concepts=tuple(c for c in self.concepts if c is not gone))

    def check_base(self, base: ModelIdentity) -> None:
        """ValueError naming both when the memory was made on another base model."""
        if base != self.base:
            raise ValueError(
                f"This memory ({', '.join(self.names()) or 'no concepts'}) was made on {self.base}, "
                f"but the loaded model is {base}. Load the checkpoint it was made on, "
                "or start a new memory for this one."
            )

    def digest(self) -> str:
        """sha256 over everything that decides what is drawn."""
        digest = hashlib.sha256(self.base.fingerprint.encode())
        for c in self.concepts:
            digest.update("\0".join([c.name, c.token, c.class_word, c.kind, c.method]).encode())
            for name, tensor in sorted(c.change.tensors().items()):
                digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
            for encoder in sorted(c.token_vectors):
                digest.update(encoder.encode() + c.token_vectors[encoder].float().numpy().tobytes())
        return digest.hexdigest()

    def summary(self) -> str:
        """One line per concept, for people."""
        lines = [f"{len(self)} concept(s) on {self.base}"]
        for i, c in enumerate(self.concepts, 1):
            about = f"({c.kind}, {c.class_word}), {c.change.summary()}, {c.learned_at}"
            lines.append(f"{i}. `{c.token}` {c.name} {about}")
        return "\n".join(lines)
