"""What a score matrix says, in words: Markdown that reads well as plain text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .forgetting import Guard, ScoreMatrix
from .matrix import Grid, Scores

_MEANING = {
    "CLIP-I": "likeness to the reference pictures",
    "CLIP-T": "agreement with the prompt, the token read as its class word",
}
_PAPER = {"CLIP-I": 100, "CLIP-T": 250}  # times the cosine is what the paper prints


def report(grid: Grid, scores: Scores) -> str:
    """All numbers of a grid, the means first."""
    pictures, stages = len(grid.seeds), grid.stages
    per_cell = f"{_counted(len(grid.prompts), 'prompt')} x {_counted(pictures, 'picture')}"
    parts = [f"**{_counted(stages, 'concept')}, each drawn with {per_cell} as of every stage**"]
    for matrix in scores.matrices():
        parts += [_means(matrix), _table(matrix)]
    measured = {concept.name for concept in scores.clip_i.concepts} if scores.clip_i else set()
    if without := [t for t in (grid.concepts[n - 1][0] for n in grid.drawn()) if t not in measured]:
        parts.append(
            f"No CLIP-I of {', '.join(f'`{token}`' for token in without)}: no reference pictures. Connect "
            "the concept, or name its folder in reference folders."
        )
    if scores.guard is not None:
        parts.append(_guarded(scores.guard, len(grid.plain)))
    return "\n\n".join(parts)


def _means(matrix: ScoreMatrix) -> str:
    average, factor = matrix.average(), _PAPER[matrix.measure]
    lines = [
        f"final average {average:.4f} (paper's scale, {factor} x: {factor * average:.2f}); when learned "
        f"{matrix.when_learned():.4f}; the class word in the untouched model {matrix.floor():.4f}",
        f"forgetting {matrix.forgetting():.4f}: from each concept's best stage to the last; 0 is none",
    ]
    transfer = matrix.backward_transfer()
    if math.isnan(transfer):
        lines.append("backward transfer: none, for nothing was learned after it")
    else:
        lines.append(
            f"backward transfer {transfer:+.4f}: from when each was learned to the last stage; below 0 is a "
            "loss"
        )
    return "\n".join(
        [f"{matrix.measure} ({_MEANING[matrix.measure]}):", "", *(f"- {line}" for line in lines)]
    )


def _table(matrix: ScoreMatrix) -> str:
    head = [f"{matrix.measure} after", "untouched", *map(str, range(1, matrix.stages + 1))]
    rows = [
        [f"`{c.name}`", *("" if (v := c.at(s)) is None else f"{v:.4f}" for s in range(matrix.stages + 1))]
        for c in matrix.concepts
    ]
    return _aligned([head, *rows])


def _guarded(guard: Guard, prompts: int) -> str:
    head = ["plain prompts after", "untouched", *map(str, range(1, len(guard.clip_t)))]
    rows = [
        ["CLIP-I to untouched", "1.0000", *(f"{value:.4f}" for value in guard.likeness)],
        ["CLIP-T", *(f"{value:.4f}" for value in guard.clip_t)],
    ]
    told = (
        f"Zero-shot guard, {_counted(prompts, 'prompt')} without a concept: at the end CLIP-I "
        f"{guard.likeness[-1]:.4f} to the untouched model's pictures of the same seeds (1 is no change), "
        f"CLIP-T {guard.clip_t[-1]:.4f} (untouched {guard.clip_t[0]:.4f})."
    )
    return f"{told}\n\n{_aligned([head, *rows])}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number > 1)}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up, the first row its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join(
            [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        )
        + " |"
        for row in rows
    ]
    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:])]) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
