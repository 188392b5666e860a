"""A table of numbers, coloured by how high they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from .canvas import FAINT_INK, GRID, INK, PAPER, Canvas, heat

LABELS = 190  # pixels, of rows
_WIDTH, _HEIGHT = 84, 40  # of a cell
_DARK = 118  # of 255; letters on darker colours are white


@dataclass(frozen=True)
class Cell:
    """value: None leaves the cell grey, or white where it is `blank`."""

    value: float | None
    blank: bool = False


def heat_table(
    title: str,
    note: str,
    columns: Sequence[str | tuple[str, str]],
    rows: Sequence[tuple[str, Sequence[Cell]]],
    shown: Callable[[float], str] = "{:.3f}".format,
    ends: tuple[float, float] | None = None,
) -> Tensor:
    """(1, H, W, 3) float32 in [0, 1], as the host shows pictures; yellow is the highest.

    columns: heads, of one line, or of two small ones; ends: what is blue and what is yellow, where these are
    not the lowest and the highest number.
    """
    left, top = LABELS + 24, 116
    right, bottom = left + len(columns) * _WIDTH, top + len(rows) * _HEIGHT
    canvas = Canvas(max(right + 20, 560), bottom + 78)
    title_of(canvas, title, note)
    values = [cell.value for _, cells in rows for cell in cells if cell.value is not None]
    low, high = ends or (min(values), max(values))
    for number, head in enumerate(columns):
        middle = left + (number + 0.5) * _WIDTH
        if isinstance(head, str):
            canvas.text((middle, top - 14), head, 14, INK, "mm", _WIDTH)
        else:
            canvas.text((middle, top - 30), head[0], 12, FAINT_INK, "mm", _WIDTH)
            canvas.text((middle, top - 14), head[1], 12, FAINT_INK, "mm", _WIDTH)
    for row, (label, cells) in enumerate(rows):
        above = top + row * _HEIGHT
        canvas.text((left - 10, above + _HEIGHT / 2), label, 14, anchor="rm", width=LABELS)
        for number, cell in enumerate(cells):
            start = left + number * _WIDTH
            box = (start + 1.0, above + 1.0, start + _WIDTH - 1.0, above + _HEIGHT - 1.0)
            if cell.value is None:
                canvas.rectangle(box, PAPER if cell.blank else GRID)
                continue
            share = (cell.value - low) / (high - low) if high > low else 1.0
            colour = heat(max(0.0, share))
            canvas.rectangle(box, colour)
            centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            canvas.text(centre, shown(cell.value), 14, _letters_on(colour), "mm")
    _scale(canvas, (left, bottom + 24), shown(low), shown(high))
    return canvas.tensor()


def title_of(canvas: Canvas, title: str, note: str) -> None:
    """Two lines at the head of a page."""
    width = canvas.size[0]
    canvas.text((width / 2, 24), title, 20, anchor="mm", width=width - 40)
    canvas.text((width / 2, 54), note, 14, FAINT_INK, "mm", width - 40)


def _scale(canvas: Canvas, corner: tuple[float, float], low: str, high: str) -> None:
    """The colours from low to high, with both numbers."""
    left, top = corner
    for part in range(160):
        canvas.rectangle((left + part, top, left + part + 1.0, top + 14.0), heat(part / 159))
    canvas.text((left - 8, top + 7), low, 12, FAINT_INK, "rm")
    canvas.text((left + 168, top + 7), high, 12, FAINT_INK, "lm")


def _letters_on(colour: tuple[int, ...]) -> tuple[int, ...]:
    red, green, blue = colour
    return PAPER if 0.299 * red + 0.587 * green + 0.114 * blue < _DARK else INK
