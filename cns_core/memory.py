"""`ConceptMemory`: what has been learned on one base model, in order, so that any stage can be rebuilt."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .concept import same_name
from .identity import ModelIdentity
from .laid import Laid
from .method import Change, Taught
from .projections import ProjectionLayout
from .summed import Summed
from .tokens import TokenVectors

# A name or token, and a number.
_STRENGTH = re.compile(r"(.+?)\s*[:=\s]\s*([-+]?(?:\d+\.?\d*|\.\d+))")


@dataclass(frozen=True, eq=False)
class LearnedConcept:
    """One learned concept, or something that was erased: its kind is `ERASURE` then, it has no token and no
    class word, and its captions name what is gone.

    captions: some that it was learned with, its token in them; later concepts are kept out of their way.
    method: its name in the registry.
    change: what it left in the projections.
    token_vectors: encoder -> float32 `(n, dim)`, as many for each.
    losses: by name, float32 `(steps,)`.
    learned_at: ISO 8601, UTC.
    thumbnail: a JPEG to know it by (`thumbnails.py`), or nothing; no part of `digest()`.
    """

    name: str
    token: str
    class_word: str
    kind: str
    captions: tuple[str, ...]
    method: str
    change: Change
    token_vectors: TokenVectors
    settings: dict[str, Any]
    losses: dict[str, Tensor]
    learned_at: str
    thumbnail: bytes = b""

    @property
    def handle(self) -> str:
        """What it goes by among the concepts of a memory: its token, or the name of what has none."""
        return self.token or self.name

    @property
    def vectors(self) -> int:
        """How many its token stands for; 0 where it has none."""
        return len(next(iter(self.token_vectors.values()), ()))

    def digest(self) -> str:
        """sha256 over everything that decides what is drawn."""
        words = [self.name, self.token, self.class_word, self.kind, self.method, *self.captions]
        digest = hashlib.sha256("\0".join(words).encode())
        for name, tensor in sorted(self.change.tensors().items()):
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy())
        for encoder in sorted(self.token_vectors):
            digest.update(encoder.encode() + self.token_vectors[encoder].float().numpy().tobytes())
        return digest.hexdigest()


class _Joined:
    """Factors that concepts share among projections, as directions are, beneath each other: once for all."""

    def __init__(self) -> None:
        # With the parts themselves: a number that names one must not name another one later.
        self._known: dict[tuple[int, ...], tuple[list[Tensor], Tensor]] = {}

    def of(self, parts: list[Tensor]) -> Tensor:
        """All rows of these parts."""
        key = tuple(map(id, parts))
        if key not in self._known:
            self._known[key] = (list(parts), torch.cat(parts))
        return self._known[key][1]


@dataclass(frozen=True, eq=False)
class ConceptMemory:
    """Concepts in the order in which they were learned. Every change gives a new memory.

    layout: keys and values of its base; concepts may have moved other weights too, see `whole`.
    """

    base: ModelIdentity
    layout: ProjectionLayout
    concepts: tuple[LearnedConcept, ...] = field(default=())

    def __post_init__(self) -> None:
        whole = self.layout
        for concept in self.concepts:
            try:
                whole = whole.joined([concept.change.layout])
            except ValueError as error:
                raise ValueError(
                    f"Concept {concept.name!r} was learned on another model than its memory's: {error}"
                ) from error
        for what, taken in (
            ("name", [same_name(c.name) for c in self.concepts]),
            ("token", [c.handle for c in self.concepts]),
        ):
            if len(set(taken)) != len(taken):
                raise ValueError(
                    f"Two concepts of this memory share a {what}; names and tokens must be unique."
                )

    def __len__(self) -> int:
        return len(self.concepts)

    @cached_property
    def whole(self) -> ProjectionLayout:
        """Keys and values, and whatever else of the U-Net a concept has moved."""
        return self.layout.joined(concept.change.layout for concept in self.concepts)

    def with_tokens(self) -> tuple[LearnedConcept, ...]:
        """The concepts that prompts can name: all but erasures."""
        return tuple(concept for concept in self.concepts if concept.token)

    def names(self) -> list[str]:
        return [c.name for c in self.concepts]

    def concept(self, name: str) -> LearnedConcept:
        """By name or token."""
        for concept in self.concepts:
            if name.lower() in (concept.name.lower(), concept.handle):
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

    def strengths(self, text: str) -> dict[str, float]:
        """By token or handle, from lines or parts between commas such as `<my-dog>: 0.8` or `my mug 1.2`.
        ValueError for a concept that is not here, one that comes twice, or what is no number from -2 to 2.
        """
        found: dict[str, float] = {}
        for part in filter(None, map(str.strip, text.replace("\n", ",").split(","))):
            match = _STRENGTH.fullmatch(part)
            number = float(match[2]) if match else math.nan
            if match is None or not -2 <= number <= 2:
                raise ValueError(
                    f"{part!r} is no strength of a concept. Write its name or token and a number from -2 "
                    "to 2, such as '<my-dog> 0.8', and commas or line ends between several."
                )
            token = self.concept(match[1].strip()).handle
            if token in found:
                raise ValueError(f"The strength of {token} is given twice; give it once.")
            found[token] = number
        return found

    def laid(self, strengths: Mapping[str, float] | None = None) -> dict[str, Laid]:
        """The change of every weight of `whole`, each concept laid on those before it.

        strengths: by handle, of some concepts; 1 for the others. 0 leaves the token alone of a concept.
        """
        by_token, shared = strengths or {}, _Joined()

        def of(name: str) -> Laid:
            return self._laid(name, by_token, shared)

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return dict(zip(self.whole.names, pool.map(of, self.whole.names), strict=True))

    def left(self) -> dict[str, Change]:
        """By handle, what each concept has left, in the order in which they were learned."""
        return {c.handle: c.change for c in self.concepts}

    def changes(self) -> dict[str, Tensor]:
        """W_t - W_0 of every weight of `whole`, float16, each concept laid on those before it."""
        return {name: laid.summed() for name, laid in self.laid().items()}

    def _laid(self, name: str, strengths: Mapping[str, float], shared: _Joined) -> Laid:
        nothing = Laid.nothing(*self.whole.shape(name))
        dense: Tensor | None = None
        ups: list[Tensor] = []
        downs: list[Tensor] = []

        def so_far() -> Laid:
            up, down = (torch.cat(ups, 1), shared.of(downs)) if ups else (nothing.up, nothing.down)
            return Laid(dense, up, down)

        for concept in self.concepts:
            strength = strengths.get(concept.handle, 1.0)
            if not strength or name not in concept.change.layout:
                continue
            if isinstance(concept.change, Summed):
                more = strength * concept.change.difference(name).float()
                dense = (more if dense is None else more.add_(dense)).half()
                continue
            if (added := concept.change.added(name)) is not None:
                ups.append(strength * added[0])
                downs.append(added[1])
                continue
            before = so_far().summed()
            if strength == 1:
                dense = concept.change.lay(name, before)
            else:
                after = concept.change.lay(name, before.clone()).float()
                dense = torch.lerp(before.float(), after, strength).half()
            ups, downs = [], []
        return so_far()

    def moved(self, name: str) -> Tensor:
        """Bool: the entries of a weight of `whole` that any concept has moved."""
        moved = torch.zeros(self.whole.shape(name), dtype=torch.bool)
        for concept in self.concepts:
            if name in concept.change.layout:
                moved |= concept.change.moved(name)
        return moved

    def token_vectors(self) -> dict[str, TokenVectors]:
        """token -> encoder -> vectors `(n, dim)`, of the concepts that have a token."""
        return {c.token: c.token_vectors for c in self.with_tokens()}

    def class_words(self) -> dict[str, str]:
        """token -> class word."""
        return {c.token: c.class_word for c in self.with_tokens()}

    def taught(self) -> tuple[Taught, ...]:
        """What prompts tell of each concept, in order."""
        return tuple(Taught(c.handle, c.class_word, c.captions) for c in self.concepts)

    def with_learned(self, concept: LearnedConcept) -> ConceptMemory:
        return replace(self, concepts=(*self.concepts, concept))

    def without(self, name: str) -> ConceptMemory:
        """Forget one concept: its token goes, and so does what it alone has left.
        What later concepts left stays.
        """
        gone = self.concept(name)
        return replace(self, concepts=tuple(c for c in self.concepts if c is not gone))

    def check_base(self, base: ModelIdentity, way_out: str = "") -> None:
        """ValueError naming both when the memory was made on another base model.

        way_out: one more than to load the right one, as a sentence with a space before it.
        """
        if not base.same_as(self.base):
            raise ValueError(
                f"This memory ({', '.join(self.names()) or 'no concepts'}) was made on {self.base}, "
                f"but the loaded model is {base}{base.told_apart(self.base)}. Load the checkpoint it was "
                "made on, with the merges and LoRAs it was made with, or start a new memory for this "
                f"one.{way_out}"
            )

    def check_fits(
        self, layout: ProjectionLayout, unet: ProjectionLayout, token_widths: Mapping[str, int]
    ) -> None:
        """ValueError unless a model of these projections, other weights and token tables (encoder -> width)
        can draw it. A file can name the right base and hold something else.
        """
        fault = self.fault_of_tokens(token_widths)
        if self.layout != layout:
            fault = (
                f"its {len(self.layout.names)} projections with {self.layout.total:,} entries are not the "
                f"model's {len(layout.names)} with {layout.total:,}"
            )
        elif strange := [n for n, s, _ in self.whole.slices() if n not in unet or unet.shape(n) != s]:
            fault = f"the model has no weight {strange[0]} of the shape {list(self.whole.shape(strange[0]))}"
        if fault is not None:
            raise ValueError(
                f"This memory ({', '.join(self.names())[:200]}) does not fit the loaded model: {fault}. Its "
                "file is damaged or was changed by hand; take another copy of it."
            )

    def fault_of_tokens(self, token_widths: Mapping[str, int]) -> str | None:
        """What is wrong with a token's vectors for these token tables (encoder -> width), or None."""
        for concept in self.with_tokens():
            seen = {encoder: vectors.shape[-1] for encoder, vectors in concept.token_vectors.items()}
            if seen != dict(token_widths):
                return f"{concept.token} has vectors of lengths {seen}, expected {dict(token_widths)}"
        return None

    def digest(self) -> str:
        """sha256 over everything that decides what is drawn."""
        parts = [self.base.fingerprint, *(concept.digest() for concept in self.concepts)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    def summary(self) -> str:
        """One line per concept, for people."""
        lines = [f"{len(self)} concept(s) on {self.base}"]
        for i, c in enumerate(self.concepts, 1):
            if not c.token:
                lines.append(f"{i}. {c.name} ({c.kind}), {c.change.summary()}, {c.learned_at}")
                continue
            several = f"{c.vectors} vectors, " if c.vectors > 1 else ""
            about = f"({c.kind}, {c.class_word}), {several}{c.change.summary()}, {c.learned_at}"
            lines.append(f"{i}. `{c.token}` {c.name} {about}")
        return "\n".join(lines)
