"""A score matrix as pictures: a heat map, each concept's course while others are learned, and what was drawn.

Tensors are (1, H, W, 3) float32 in [0, 1], as the host shows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from PIL import Image, ImageOps
from torch import Tensor

from .canvas import FAINT_INK, GRID, LINES, PAPER, Canvas, ticks
from .forgetting import ScoreMatrix
from .heat_table import LABELS, Cell, heat_table, title_of

_CORNERS = (0, 4, 3, 5)  # of marks, one after another where the colours begin again
_MOST_PIXELS = 40_000_000  # of a page with many pictures; then they become smaller
_CELL, _LEAST_CELL = 192, 32


def heat_map(matrix: ScoreMatrix) -> Tensor:
    """A row for each concept, a column for each stage, the floor first; yellow is the highest score."""
    heads: list[str | tuple[str, str]] = [("class word,", "untouched")]
    heads += map(str, range(1, matrix.stages + 1))
    rows = [
        (c.name, [Cell(c.at(stage), blank=stage == 0) for stage in range(matrix.stages + 1)])
        for c in matrix.concepts
    ]
    title = f"{matrix.measure} of each concept at each stage"
    return heat_table(title, "rows: concepts; columns: concepts learned", heads, rows)


def course(matrix: ScoreMatrix) -> Tensor:
    """The score of each concept against the number of concepts learned, from its own on (the paper's Fig. 5);
    at 0, hollow, its floor. (1, H, 960, 3), higher with more concepts.
    """
    count = len(matrix.concepts)
    bottom = max(470, 84 + 26 * count)
    canvas = Canvas(960, bottom + 62)
    title_of(
        canvas,
        f"{matrix.measure} while more is learned",
        "hollow: the class word, drawn by the untouched model",
    )
    left, top, right = 84, 84, 960 - LABELS - 70
    y_ticks = ticks(min(matrix.values()), max(matrix.values()))
    floors = any(concept.floor is not None for concept in matrix.concepts)
    first = 0 if floors else 1
    span = max(1, matrix.stages - first)

    def place(stage: int, value: float) -> tuple[float, float]:
        across = (stage - first + 0.25) / (span + 0.5)
        up = (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return left + across * (right - left), bottom - up * (bottom - top)

    for tick in y_ticks:
        y = place(first, tick)[1]
        canvas.line([(left, y), (right, y)], GRID, 1)
        canvas.text((left - 10, y), f"{tick:.10g}", 14, FAINT_INK, "rm")
    every = -(-(matrix.stages + 1) // 25)
    for stage in range(first, matrix.stages + 1, every):
        x = place(stage, y_ticks[0])[0]
        canvas.line([(x, bottom), (x, bottom + 6)], FAINT_INK, 1)
        canvas.text((x, bottom + 18), str(stage), 14, FAINT_INK, "mm")
    canvas.line([(left, top), (left, bottom), (right, bottom)], FAINT_INK, 1.5)
    canvas.text(((left + right) / 2, bottom + 44), "concepts learned", 14, FAINT_INK, "mm")
    for number, concept in enumerate(matrix.concepts):
        colour, corners = LINES[number % len(LINES)], _CORNERS[number // len(LINES) % len(_CORNERS)]
        points = [
            place(stage, value)
            for stage in range(concept.learned, matrix.stages + 1)
            if (value := concept.at(stage)) is not None
        ]
        for pair in pairwise(points):
            canvas.line(pair, colour, 2.5)
        for point in points:
            canvas.mark(point, corners, colour, filled=True)
        if concept.floor is not None:
            canvas.mark(place(0, concept.floor), corners, colour, filled=False)
        y = top + 10 + number * 26
        canvas.mark((right + 26, y), corners, colour, filled=True)
        canvas.text((right + 40, y), concept.name, 14, anchor="lm", width=LABELS + 20)
    return canvas.tensor()


def picture_grid(
    columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Image.Image | None]]], title: str, note: str
) -> Tensor:
    """Labelled rows of pictures below labelled columns; None leaves a place empty."""
    step = _CELL
    while step > _LEAST_CELL and (step + 6) ** 2 * len(columns) * len(rows) > _MOST_PIXELS:
        step -= 16
    left, top = LABELS + 24, 104
    canvas = Canvas(max(left + len(columns) * (step + 6) + 14, 560), top + len(rows) * (step + 6) + 14)
    title_of(canvas, title, note)
    for number, label in enumerate(columns):
        middle = left + number * (step + 6) + step / 2
        canvas.text((middle, top - 16), label, 14, anchor="mm", width=step)
    for row, (label, pictures) in enumerate(rows):
        above = top + row * (step + 6)
        _wrapped(canvas, label, (left - 12, above + step / 2), step)
        for number, picture in enumerate(pictures):
            if picture is not None:
                shown = ImageOps.pad(picture.convert("RGB"), (step, step), color=PAPER)
                canvas.picture(shown, (left + number * (step + 6), above))
    return canvas.tensor()


def _wrapped(canvas: Canvas, label: str, middle: tuple[float, float], room: float) -> None:
    """A row's label, right-aligned and broken between words into as many lines as there is room for."""
    lines: list[str] = []
    for word in label.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and canvas.fits(longer, 14, LABELS):
            lines[-1] = longer
        else:
            lines.append(word)
    most = max(1, int(room // 20))
    shown = [*lines[: most - 1], " ".join(lines[most - 1 :])] if len(lines) > most else lines
    for number, line in enumerate(shown):
        y = middle[1] + (number - (len(shown) - 1) / 2) * 20
        canvas.text((middle[0], y), line, 14, anchor="rm", width=LABELS)
