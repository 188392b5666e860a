"""New concepts out of a space: drawn anew, or moved along a direction that labels tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

import torch
from torch import Tensor

from ..concept import check_name, make_token
from ..joining.maps import Part
from ..memory import ConceptMemory, LearnedConcept
from ..tokens import TokenVectors
from .change import OutOfSpace, SpaceChange
from .members import ENOUGH, Members
from .mixing import factors, summed
from .settings import EditSettings, SampleSettings
from .space import ConceptSpace

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Made:
    """A memory of the new concept alone, and lines for the user."""

    memory: ConceptMemory
    lines: list[str]

    @property
    def concept(self) -> LearnedConcept:
        return self.memory.concepts[0]


def sample(members: Members, name: str, settings: SampleSettings, on_progress: OnProgress) -> Made:
    """A concept that was never learned, drawn from the space.

    Raises:
        ValueError: the name, the settings and the space do not fit each other.
    """
    check_name(name)
    token = make_token(name)
    space = ConceptSpace.of(members, settings.token_share, on_progress)
    weights = space.drawn(settings.seed, settings.distance, settings.components)
    mixed = _mixed(members, weights, settings.rank, None, on_progress)
    near = space.nearest(weights)
    like = members.concepts[near[0]]
    concept = _concept(
        members, like, name, token, mixed, {"sample": asdict(settings), "concepts": len(members)}
    )
    named = ", ".join(members.concepts[place].token for place in near[:3])
    lines = [
        *_of_space(space, settings.components),
        f"it lies {space.size(weights - space.mean()):.2f} times as far from the mean as the concepts do; "
        f"next to it are {named}",
        _kept(mixed, settings.rank, "it"),
    ]
    return Made(ConceptMemory(members.base, members.layout, (concept,)), lines)


def edit(
    members: Members,
    concept: LearnedConcept,
    more_like: str,
    less_like: str,
    name: str,
    settings: EditSettings,
    on_progress: OnProgress,
) -> Made:
    """A concept, moved from what some concepts have in common to what others have.

    Args:
        concept: one of the space, or another one that fits it (`Members.check_fits`).
        more_like: names or tokens of the space's concepts; less_like: likewise, nothing for all others.
        name: of what comes of it; nothing for the concept's own.

    Raises:
        ValueError: lists, name, settings and space do not fit each other.
    """
    toward, away = _lists(members, more_like, less_like)
    if name.strip():
        check_name(name)
    new_name = name.strip() or concept.name
    token = make_token(name) if name.strip() else concept.token
    space = ConceptSpace.of(members, settings.token_share, on_progress)
    direction = space.direction(toward, away, settings.components)
    lines = [
        *_of_space(space, settings.components),
        f"strength 1 is {space.size(direction):.2f} times as far as the concepts lie from their mean",
    ]
    if min(len(toward), len(away)) > 1:
        right = space.told_apart(toward, away, settings.components)
        lines.append(
            f"{right:.0%} of the {len(toward)} and {len(away)} concepts listed lie nearer to the rest of "
            "their own list, each list counting half; 50% would by chance"
        )
    if settings.strength == 0 and token == concept.token:
        return Made(ConceptMemory(members.base, members.layout, (concept,)), [*lines, "it is as it was"])
    mixed = _mixed(members, settings.strength * direction, settings.rank, concept, on_progress)
    told = {
        "edit": asdict(settings),
        "concepts": len(members),
        "more_like": [members.concepts[place].token for place in toward],
        "less_like": [members.concepts[place].token for place in away],
        "from": {"name": concept.name, "method": concept.method, "settings": concept.settings},
    }
    moved = _concept(members, concept, new_name, token, mixed, told)
    lines.append(_kept(mixed, settings.rank, "the step"))
    return Made(ConceptMemory(members.base, members.layout, (moved,)), lines)


@dataclass(frozen=True, eq=False)
class _Mixed:
    """kept: how much of the change's square its rank keeps, 0 to 1."""

    change: SpaceChange
    vectors: TokenVectors
    kept: float


def _mixed(
    members: Members, weights: Tensor, rank: int, on: LearnedConcept | None, on_progress: OnProgress
) -> _Mixed:
    """`sum_i weights_i x_i`, on top of a concept, whose own factors stay as they are."""
    names = members.weights.names
    parts: dict[str, Part] = {}
    kept = there = 0.0
    for done, name in enumerate(names):
        on_progress(done, len(names))
        pairs = [
            (weight, factors(concept.change, name))
            for weight, concept in zip(weights.tolist(), members.concepts, strict=True)
        ]
        part, part_kept, part_there = summed(pairs, rank)
        kept, there = kept + part_kept, there + part_there
        if on is not None:
            up, down = factors(on.change, name)
            assert part.right is not None
            part = Part(torch.cat([up.float(), part.left], 1), torch.cat([down.float(), part.right]))
        parts[name] = part
    change = SpaceChange.made(OutOfSpace.name, members.weights, parts)
    assert isinstance(change, SpaceChange)
    vectors: TokenVectors = {}
    for encoder in members.concepts[0].token_vectors:
        each = torch.stack([concept.token_vectors[encoder].double() for concept in members.concepts])
        total = torch.einsum("i,ind->nd", weights, each)
        vectors[encoder] = (total if on is None else total + on.token_vectors[encoder].double()).float()
    return _Mixed(change, vectors, kept / there if there else 1.0)


def _concept(
    members: Members, like: LearnedConcept, name: str, token: str, mixed: _Mixed, told: dict[str, Any]
) -> LearnedConcept:
    """like: the concept whose words it takes over."""
    return LearnedConcept(
        name=name,
        token=token,
        class_word=like.class_word,
        kind=like.kind,
        captions=tuple(dict.fromkeys(caption.replace(like.token, token) for caption in like.captions)),
        method=OutOfSpace.name,
        change=mixed.change,
        token_vectors=mixed.vectors,
        settings={"space": told | {"learned_by": members.concepts[0].method}},
        losses={},
        learned_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _lists(members: Members, more_like: str, less_like: str) -> tuple[list[int], list[int]]:
    toward, away = members.places(more_like), members.places(less_like)
    if not toward:
        raise ValueError(
            '"more like" names no concept. Write the tokens of concepts that have what you look for, such as '
            f"{members.concepts[0].token}, {members.concepts[1].token}."
        )
    away = away or [place for place in range(len(members)) if place not in toward]
    if not away:
        raise ValueError('"more like" names every concept of the space; leave out those that lack it.')
    if both := [members.concepts[place].token for place in toward if place in away]:
        raise ValueError(f'{", ".join(both)} stands in both "more like" and "less like"; take it out of one.')
    return toward, away


def _of_space(space: ConceptSpace, components: int) -> list[str]:
    members = space.members
    count = space.used(components)
    lines = [
        f"{len(members)} concepts by {members.concepts[0].method}; {count} of {len(space.variances)} "
        f"components hold {space.share(components):.0%} of how they differ"
    ]
    if len(members) < ENOUGH:
        lines.append(
            f"a space of fewer than {ENOUGH} concepts says more of each of them than of what they have in "
            "common: expect mixtures of two or three"
        )
    return lines


def _kept(mixed: _Mixed, rank: int, what: str) -> str:
    return f"rank {rank} keeps {mixed.kept:.1%} of what {what} changes of the weights"
