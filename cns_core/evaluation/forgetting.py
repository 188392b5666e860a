"""What is left of each concept as more are learned, in the numbers of continual learning.

With `R[t,s]` the score of concept t when s concepts have been learned, of T in all, t and s from 1:
final average `mean_t R[t,T]`, forgetting `mean_t (max_{s>=t} R[t,s] - R[t,T])`, and backward transfer
`mean_{t<T} (R[t,T] - R[t,t])`.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ConceptScores:
    """The scores of one concept.

    learned: the stage at which it was learned, t.
    after: R[t,t] to R[t,T], NaN where it was not measured.
    floor: what the untouched model scores with the class word in the token's place, or None.
    """

    name: str
    learned: int
    after: tuple[float, ...]
    floor: float | None = None

    @property
    def when_learned(self) -> float:
        return self.after[0]

    @property
    def last(self) -> float:
        return self.after[-1]

    def forgotten(self) -> float:
        """max_{s>=t} R[t,s] - R[t,T]; NaN where one of them was not measured."""
        return math.nan if any(map(math.isnan, self.after)) else max(self.after) - self.last

    def transferred(self) -> float:
        """R[t,T] - R[t,t]: below 0 where later concepts have made it worse."""
        return self.last - self.when_learned

    def at(self, stage: int) -> float | None:
        """R[t,stage], the floor at stage 0, None where there is none."""
        if stage == 0:
            return self.floor
        return self.after[stage - self.learned] if stage >= self.learned else None


@dataclass(frozen=True)
class ScoreMatrix:
    """R by one measure, of some or all of `stages` concepts. ValueError unless each has a score for every
    stage since it was learned.

    Example:
        >>> dog, mug = ConceptScores("dog", 1, (0.8, 0.7)), ConceptScores("mug", 2, (0.5,))
        >>> matrix = ScoreMatrix("CLIP-I", 2, (dog, mug))
        >>> round(matrix.average(), 3), round(matrix.forgetting(), 3), round(matrix.backward_transfer(), 3)
        (0.6, 0.05, -0.1)
    """

    measure: str
    stages: int
    concepts: tuple[ConceptScores, ...]

    def __post_init__(self) -> None:
        if not self.concepts:
            raise ValueError(f"{self.measure}: no concept has scores; expected at least one.")
        for concept in self.concepts:
            if not 1 <= concept.learned <= self.stages:
                raise ValueError(
                    f"{self.measure}: {concept.name} was learned at stage {concept.learned}, expected "
                    f"one from 1 to {self.stages}."
                )
            if len(concept.after) != self.stages - concept.learned + 1:
                raise ValueError(
                    f"{self.measure}: {concept.name} has {len(concept.after)} scores; expected one for "
                    f"each stage from {concept.learned} to {self.stages}."
                )

    @classmethod
    def of_stages(
        cls, measure: str, learned: Sequence[str], scores: Sequence[Mapping[str, float]]
    ) -> ScoreMatrix:
        """From what was measured stage by stage.

        learned: the concepts that the stages have learned, one each; stages after them learn none.
        scores: of each stage, by concept; one that is missing was not measured then.
        """
        concepts = (
            ConceptScores(name, t, tuple(stage.get(name, math.nan) for stage in scores[t - 1 :]))
            for t, name in enumerate(learned, start=1)
        )
        return cls(measure, len(scores), tuple(concepts))

    def average(self) -> float:
        """Final average: mean_t R[t,T]."""
        return _mean(c.last for c in self.concepts)

    def when_learned(self) -> float:
        """mean_t R[t,t]."""
        return _mean(c.when_learned for c in self.concepts)

    def forgetting(self) -> float:
        """mean_t (max_{s>=t} R[t,s] - R[t,T]); the concept that was learned last counts with 0."""
        return _mean(c.forgotten() for c in self.concepts)

    def transfers(self) -> tuple[float, ...]:
        """R[t,T] - R[t,t] of each concept but the one that was learned last."""
        return tuple(c.transferred() for c in self.concepts if c.learned < self.stages)

    def backward_transfer(self) -> float:
        """mean_{t<T} (R[t,T] - R[t,t]); NaN where nothing was learned after any of the concepts."""
        return _mean(self.transfers())

    def floor(self) -> float:
        """Mean of the floors; NaN without any."""
        return _mean(c.floor for c in self.concepts if c.floor is not None)

    def values(self) -> list[float]:
        """All scores that were measured, floors among them."""
        found = [value for c in self.concepts for value in (c.floor, *c.after)]
        return [value for value in found if value is not None and not math.isnan(value)]

    def rows(self) -> list[list[str]]:
        """Of a table: measure, concept, its stage, and a cell for each stage from 0 (the floor), empty where
        there is no score.
        """
        return [
            [self.measure, c.name, str(c.learned), *(_cell(c.at(s)) for s in range(self.stages + 1))]
            for c in self.concepts
        ]


@dataclass(frozen=True)
class Guard:
    """What became of prompts that name no concept.

    likeness: of stages 1 to T, mean cosine between each picture and the untouched model's of the same prompt
        and seed; 1 means that nothing has changed.
    clip_t: of stages 0 (untouched) to T.
    """

    likeness: tuple[float, ...]
    clip_t: tuple[float, ...]

    def rows(self) -> list[list[str]]:
        """As `ScoreMatrix.rows`, without a concept."""
        return [
            ["CLIP-I to the untouched model", "plain prompts", "", "", *map(_cell, self.likeness)],
            ["CLIP-T", "plain prompts", "", *map(_cell, self.clip_t)],
        ]


def as_csv(matrices: Sequence[ScoreMatrix], guard: Guard | None = None) -> str:
    """One table of all: a line for each measure and concept, a column for each stage from 0.

    Example:
        >>> print(as_csv([ScoreMatrix("CLIP-I", 1, (ConceptScores("dog", 1, (0.75,), 0.5),))]), end="")
        measure,concept,learned at stage,stage 0,stage 1
        CLIP-I,dog,1,0.500000,0.750000
    """
    stages = matrices[0].stages
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["measure", "concept", "learned at stage", *(f"stage {s}" for s in range(stages + 1))])
    for matrix in matrices:
        table.writerows(matrix.rows())
    if guard is not None:
        table.writerows(guard.rows())
    return text.getvalue()


def _cell(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6f}"


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found) if found else math.nan
