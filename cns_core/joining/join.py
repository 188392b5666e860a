"""Several memories of one base as one, by a rule that sees all of their concepts at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..concept import ERASURE, check_free
from ..memory import ConceptMemory, LearnedConcept
from ..methods.token_only import NoChange
from ..within import is_sum
from . import JOININGS
from .change import JoinedChange
from .maps import Part, eigen
from .rule import Evidence, Joining


@dataclass(frozen=True, eq=False)
class Seen:
    """What tells how well joining went, `(text_dim, text_dim)` float64.

    own: the second moment of all that the captions of each memory's concepts say; general: that of general
    prompts; gram: W^T W over all untouched projections.
    """

    own: tuple[Tensor, ...]
    general: Tensor
    gram: Tensor


@dataclass(frozen=True, eq=False)
class Joined:
    """missed: of each memory, by how much keys and values of its captions differ from what the memory alone
    makes of them, over what it changes of them; root mean squares. general: how much keys and values of
    general prompts change, over the untouched ones.
    """

    memory: ConceptMemory
    missed: tuple[float, ...]
    general: float


def check_joinable(memories: Sequence[ConceptMemory], rule: Joining) -> None:
    """ValueError, before any work, for memories that the rule cannot join."""
    first = memories[0]
    if rule.most is not None and len(memories) > rule.most:
        others = ", ".join(n for n, r in JOININGS.items() if r.most is None)
        raise ValueError(
            f"There are {len(memories)} memories, but {rule.name} joins {rule.most}. Unplug the others, or "
            f"choose one of: {others}."
        )
    taken: list[tuple[str, str]] = []
    for number, memory in enumerate(memories, 1):
        if not memory.base.same_as(first.base) or memory.layout != first.layout:
            raise ValueError(
                f"Memory 1 was made on {first.base}, memory {number} on {memory.base}"
                f"{first.base.told_apart(memory.base)}. Only memories of one model can become one."
            )
        if not memory.with_tokens():
            raise ValueError(f"Memory {number} holds no concept; unplug it.")
        for concept in memory.concepts:
            _check_concept(concept, memory, number, rule)
            try:
                check_free(concept.token, concept.name, taken)
            except ValueError as error:
                raise ValueError(
                    f"Memory {number} holds {concept.name!r} ({concept.token}), and so does one before it, "
                    "by name or by token. Concepts to be joined are each learned apart: forget one of the "
                    "two with Forget Concept, or learn it under another name and token."
                ) from error
            taken.append((concept.name, concept.token))


def _check_concept(concept: LearnedConcept, memory: ConceptMemory, number: int, rule: Joining) -> None:
    if concept.kind == ERASURE:
        raise ValueError(
            f"Memory {number} has an erasure, {concept.name!r}, which belongs to no token. Take it out with "
            "Forget Concept, and erase again in the joined memory."
        )
    others = [name for name in concept.change.layout.names if name not in memory.layout]
    if rule.reads_text and others:
        raise ValueError(
            f"{concept.name!r} of memory {number}, learned by {concept.method}, moved {len(others)} weights "
            f"such as {others[0]} that do not read text; {rule.name} goes by what prompts say, which keys "
            "and values alone read. Choose sum, or learn the concept on keys and values."
        )


def join(
    memories: Sequence[ConceptMemory],
    rule: Joining,
    settings: Any,
    evidence: Evidence,
    seen: Seen,
    on_progress: Callable[[int, int], None],
) -> Joined:
    """One memory of all concepts, each with its share of what was joined.

    Args:
        evidence: for the rule; seen: to tell how well it went.
        on_progress: `(done, total)`, of projections; may raise to stop.

    Raises:
        ValueError: the memories cannot be joined by this rule.
    """
    check_joinable(memories, rule)
    blend = rule.start(evidence, settings)
    layout = memories[0].layout
    names = layout.joined(memory.whole for memory in memories).names
    shares: dict[str, dict[str, Part]] = {c.token: {} for memory in memories for c in memory.concepts}
    tally = _Tally(seen)
    for done, name in enumerate(names):
        on_progress(done, len(names))
        apart = [dict(_parts(memory, name)) for memory in memories]
        shape = next(memory.whole.shape(name) for memory in memories if name in memory.whole)
        changes = [_total(parts.values(), shape) for parts in apart]
        maps = blend.maps([change.double() for change in changes])
        for parts, to_share in zip(apart, maps, strict=True):
            for token, part in parts.items():
                shares[token][name] = to_share.of(part)
        if name in layout:
            whole = _total((shares[t][name] for parts in apart for t in parts), shape)
            tally.add(changes, whole)
    all_names = [name for memory in memories for name in memory.names()]
    told = {"rule": rule.name, "concepts": all_names, **asdict(settings)}
    concepts = tuple(
        _joined(concept, rule, shares[concept.token], told) for m in memories for concept in m.concepts
    )
    on_progress(len(names), len(names))
    return Joined(replace(memories[0], concepts=concepts), tally.missed(), tally.moved())


def _joined(
    concept: LearnedConcept, rule: Joining, parts: dict[str, Part], told: dict[str, Any]
) -> LearnedConcept:
    """The concept with its share. What is added as it is stays what it was."""
    if isinstance(concept.change, NoChange) or (is_sum(concept.change) and not rule.reads_text):
        return concept
    change = JoinedChange.made(rule.name, concept.change.layout, parts)
    settings = {**concept.settings, "joined": {**told, "learned_by": concept.method}}
    return replace(concept, method=rule.name, change=change, settings=settings)


def _parts(memory: ConceptMemory, name: str) -> Iterator[tuple[str, Part]]:
    """What each concept (by token) adds to a weight, one after another: their sum is the memory's change."""
    out, width = memory.whole.shape(name) if name in memory.whole else (0, 0)
    before = torch.zeros(out, width)
    for concept in memory.concepts:
        if name not in concept.change.layout:
            continue
        added = concept.change.added(name)
        if added is not None:
            part = Part(*added)
        else:
            part = Part(concept.change.lay(name, before.half()).float() - before)
        yield concept.token, part
        before = before + part.in_full()


def _total(parts: Iterable[Part], shape: tuple[int, int]) -> Tensor:
    """The sum of parts, float32."""
    total = torch.zeros(shape)
    for part in parts:
        total += part.in_full()
    return total


class _Tally:
    """Sums over projections of what is measured."""

    def __init__(self, seen: Seen) -> None:
        self._features = [_root(moment) for moment in seen.own]
        self._general = _root(seen.general)
        self._untouched = float((seen.gram * seen.general).sum())
        self._own, self._rest = [0.0] * len(seen.own), [0.0] * len(seen.own)
        self._moved = 0.0

    def add(self, changes: Sequence[Tensor], whole: Tensor) -> None:
        """Of one projection: D_i of each memory, and D."""
        for number, (change, features) in enumerate(zip(changes, self._features, strict=True)):
            self._own[number] += _energy(change, features)
            self._rest[number] += _energy(whole - change, features)
        self._moved += _energy(whole, self._general)

    def missed(self) -> tuple[float, ...]:
        pairs = zip(self._rest, self._own, strict=True)
        return tuple(math.sqrt(rest / own) if own > 0 else 0.0 for rest, own in pairs)

    def moved(self) -> float:
        return math.sqrt(self._moved / self._untouched) if self._untouched > 0 else 0.0


def _root(moment: Tensor) -> Tensor:
    """R `(d, r)` float32 with R R^T = C, so that tr(D C D^T) = ||D R||^2."""
    sizes, directions = eigen(moment)
    return (directions * sizes.sqrt()).float()


def _energy(change: Tensor, features: Tensor) -> float:
    return float((change @ features).double().square().sum())
