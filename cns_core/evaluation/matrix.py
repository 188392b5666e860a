"""What a score matrix is measured on: which pictures are drawn as of which stage, and what their features in
a CLIP's joint space say.

Stage 0 is the untouched model, stage s the memory as it stood when s concepts had been learned. Concept t is
drawn at the stages t to T, and at stage 0 with its class word in the token's place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..concept import BUCKET_STEP
from ..memory import ConceptMemory
from ..prompt_tokens import PLACE, tokens_in
from ..settings import check, number, whole
from ..values import shown
from .forgetting import ConceptScores, Guard, ScoreMatrix

DEFAULT_PROMPTS = "a photo of {}\na photo of {} on a beach"
DEFAULT_PLAIN_PROMPTS = "a photo of a red car\na bowl of fruit on a table\na street in the rain"
_SEEDS = 2**64


@dataclass(frozen=True)
class MatrixSettings:
    """How the pictures are drawn."""

    pictures: int = whole(2, 1, 100, "Pictures of each prompt, concept and stage, each of its own seed.")
    seed: int = whole(0, 0, _SEEDS - 1, "Seed of the first picture; the next ones follow it.")
    steps: int = whole(20, 1, 1000, "Sampling steps of each picture.")
    cfg: float = number(7.0, 0, 100, "How strongly pictures follow their prompts.", step=0.5)
    resolution: int = whole(
        512, 64, 2048, "Width and height in pixels: 512 for SD 1.x, 768 for SD 2.x, 1024 for SDXL."
    )

    def __post_init__(self) -> None:
        check(self)
        if self.resolution % BUCKET_STEP:
            nearest = max(BUCKET_STEP, round(self.resolution / BUCKET_STEP) * BUCKET_STEP)
            raise ValueError(
                f"resolution is {self.resolution}, expected a multiple of {BUCKET_STEP}. Use {nearest}."
            )

    def seeds(self) -> tuple[int, ...]:
        return tuple((self.seed + number) % _SEEDS for number in range(self.pictures))


@dataclass(frozen=True)
class Cell:
    """One picture: what is asked of the model as of a stage, and the seed of its noise."""

    stage: int
    prompt: str
    seed: int


@dataclass(frozen=True)
class Grid:
    """All cells of a matrix.

    concepts: token and class word of each, in the order in which they were learned. What was erased has no
        class word, and its name in the token's place: it is a stage, but there is nothing of it to draw.
    prompts: with `{}` in the concept's place; plain: without.
    """

    concepts: tuple[tuple[str, str], ...]
    prompts: tuple[str, ...]
    plain: tuple[str, ...]
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, memory: ConceptMemory, prompts: str, plain: str, settings: MatrixSettings) -> Grid:
        """For a memory, from prompts one a line. ValueError where there is nothing to draw, or a prompt has
        no place for the concept, names a token, or, being plain, has such a place.
        """
        if not memory.with_tokens():
            raise ValueError(
                "The memory holds 0 concepts, expected at least 1. Connect a memory that has learned "
                "something."
            )
        concepts = tuple((c.handle, c.class_word) for c in memory.concepts)
        grid = cls(concepts, concept_prompts(prompts), plain_prompts(plain), settings.seeds())
        for prompt in (*grid.prompts, *grid.plain):
            if named := tokens_in(prompt):
                raise ValueError(
                    f"The prompt {shown(prompt)} names {', '.join(named)}, which means nothing where it was "
                    f"not learned. Write {PLACE} where each concept goes in turn, and an ordinary word "
                    "elsewhere."
                )
        return grid

    @property
    def stages(self) -> int:
        return len(self.concepts)

    def drawn(self) -> list[int]:
        """The numbers, from 1, of the concepts that are drawn: all but what was erased."""
        return [number for number, (_, word) in enumerate(self.concepts, start=1) if word]

    def scored_as(self, concept: int) -> tuple[str, ...]:
        """The prompts of a concept, by its number from 1, with its class word: what stage 0 draws, and what
        CLIP-T compares the pictures of every stage with.
        """
        return tuple(prompt.replace(PLACE, self.concepts[concept - 1][1]) for prompt in self.prompts)

    def of_concept(self, concept: int, stage: int) -> list[Cell]:
        """The pictures of a concept as of a stage: prompt by prompt, every seed."""
        word = self.concepts[concept - 1][0 if stage else 1]
        return self._each(stage, [prompt.replace(PLACE, word) for prompt in self.prompts])

    def of_plain(self, stage: int) -> list[Cell]:
        return self._each(stage, self.plain)

    def cells(self) -> list[Cell]:
        """Every picture once, stage by stage."""
        return list(dict.fromkeys(self._all()))

    def texts(self) -> list[str]:
        """Every prompt that pictures are compared with, once."""
        return list(dict.fromkeys([*(p for t in self.drawn() for p in self.scored_as(t)), *self.plain]))

    def _all(self) -> Iterator[Cell]:
        for stage in range(self.stages + 1):
            for concept in self.drawn():
                if stage == 0 or concept <= stage:
                    yield from self.of_concept(concept, stage)
            yield from self.of_plain(stage)

    def _each(self, stage: int, prompts: Sequence[str]) -> list[Cell]:
        return [Cell(stage, prompt, seed) for prompt in prompts for seed in self.seeds]


@dataclass(frozen=True)
class Scores:
    """Of a grid. clip_i: of the concepts with references, None without any; guard: None without plain
    prompts.
    """

    clip_i: ScoreMatrix | None
    clip_t: ScoreMatrix
    guard: Guard | None

    def shown(self) -> ScoreMatrix:
        """The one that tells most of the concepts."""
        return self.clip_i or self.clip_t

    def matrices(self) -> list[ScoreMatrix]:
        return [matrix for matrix in (self.clip_i, self.clip_t) if matrix is not None]


def concept_prompts(text: str) -> tuple[str, ...]:
    """One a line. ValueError for none, or one without a place for the concept."""
    lines = _lines(text)
    if not lines:
        raise ValueError(
            f"There are 0 prompts, expected at least one, such as 'a photo of {PLACE}'. Write one."
        )
    for line in lines:
        if PLACE not in line:
            raise ValueError(
                f"The prompt {shown(line)} has no {PLACE}, expected one where the concept goes: "
                f"'a photo of {PLACE}'. Prompts without a concept go into plain prompts."
            )
    return lines


def plain_prompts(text: str) -> tuple[str, ...]:
    """One a line, or none. ValueError for one with a place for a concept."""
    lines = _lines(text)
    for line in lines:
        if PLACE in line:
            raise ValueError(
                f"The plain prompt {shown(line)} has {PLACE}, and nothing goes there: plain prompts name no "
                "concept. Move it to prompts, or write an ordinary word."
            )
    return lines


def score(
    grid: Grid, features: Mapping[Cell, Tensor], texts: Mapping[str, Tensor], references: Mapping[str, Tensor]
) -> Scores:
    """All scores of a grid.

    Args:
        features: of each picture, a unit vector `(d,)`.
        texts: of each of `grid.texts()`, a unit vector `(d,)`.
        references: by token, unit vectors `(n, d)` of what the concept should look like; not of every one.
    """

    def pictures(cells: Sequence[Cell]) -> Tensor:
        return torch.stack([features[cell] for cell in cells])  # (n, d)

    def likeness(concept: int, stage: int) -> float:
        own = references[grid.concepts[concept - 1][0]]
        return float((pictures(grid.of_concept(concept, stage)) @ own.T).mean())

    def agreement(concept: int, stage: int) -> float:
        return _paired(
            pictures(grid.of_concept(concept, stage)), _of_prompts(grid, grid.scored_as(concept), texts)
        )

    def matrix(measure: str, by: Callable[[int, int], float], concepts: Sequence[int]) -> ScoreMatrix:
        def row(concept: int) -> ConceptScores:
            after = tuple(by(concept, stage) for stage in range(concept, grid.stages + 1))
            return ConceptScores(grid.concepts[concept - 1][0], concept, after, by(concept, 0))

        return ScoreMatrix(measure, grid.stages, tuple(map(row, concepts)))

    numbers = grid.drawn()
    with_references = [t for t in numbers if grid.concepts[t - 1][0] in references]
    guard = None
    if grid.plain:
        by_stage = [pictures(grid.of_plain(stage)) for stage in range(grid.stages + 1)]
        prompts = _of_prompts(grid, grid.plain, texts)
        guard = Guard(
            tuple(_paired(drawn, by_stage[0]) for drawn in by_stage[1:]),
            tuple(_paired(drawn, prompts) for drawn in by_stage),
        )
    clip_i = matrix("CLIP-I", likeness, with_references) if with_references else None
    return Scores(clip_i, matrix("CLIP-T", agreement, numbers), guard)


def _of_prompts(grid: Grid, prompts: Sequence[str], texts: Mapping[str, Tensor]) -> Tensor:
    """Vectors `(n, d)` in the order of the cells."""
    return torch.stack([texts[prompt] for prompt in prompts for _ in grid.seeds])


def _paired(a: Tensor, b: Tensor) -> float:
    """Mean cosine of the first with the first, the second with the second, ..."""
    return float((a * b).sum(dim=-1).mean())


def _lines(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, map(str.strip, text.splitlines()))))
