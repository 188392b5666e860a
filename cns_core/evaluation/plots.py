"""Pictures of numbers, drawn with PIL alone: loss curves, and bars of the share of neurons.

Tensors are (1, H, W, 3) float32 in [0, 1], as the host shows them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from .canvas import FAINT_INK, GRID, LINES, Canvas, ticks

BARS_IN_COLUMN = 36  # SD 1.5 has 32 projections (one column), SDXL 140 (four)


def loss_curve(losses: Mapping[str, Sequence[float]], title: str = "Loss", smoothing: float = 0.95) -> Tensor:
    """Each series' values faint and their running mean bold, against steps from 1. (1, 540, 960, 3).

    `smoothing` in [0, 1) is how much of the running mean stays at each step; its start is not biased to zero.
    Values that are not finite are left out. ValueError for no finite value or an impossible smoothing.
    """
    if not 0.0 <= smoothing < 1.0:
        raise ValueError(f"smoothing must lie in [0, 1), got {smoothing}. Use 0 for the bare values.")
    series = {name: np.asarray(list(values), dtype=np.float64) for name, values in losses.items()}
    finite = [values[np.isfinite(values)] for values in series.values()]
    if not sum(len(values) for values in finite):
        raise ValueError(f"No finite loss to draw in {len(series)} series {sorted(series)}. Train first.")
    y_ticks = ticks(min(0.0, *(v.min() for v in finite if len(v))), max(v.max() for v in finite if len(v)))
    last = max(2, *(len(values) for values in series.values()))
    x_ticks = [tick for tick in ticks(1, last) if 1 <= tick <= last and tick == int(tick)]
    canvas = Canvas(960, 540)
    canvas.text((480, 24), title, 20, anchor="mm", width=900)
    left, top, right, bottom = 84, 84, 930, 486

    def place(step: float, value: float) -> tuple[float, float]:
        across = (step - 1) / (last - 1)
        up = (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return left + across * (right - left), bottom - up * (bottom - top)

    for tick in y_ticks:
        y = place(1, tick)[1]
        canvas.line([(left, y), (right, y)], GRID, 1)
        canvas.text((left - 10, y), f"{tick:.10g}", 14, FAINT_INK, "rm")
    for tick in x_ticks:
        x = place(tick, y_ticks[0])[0]
        canvas.line([(x, bottom), (x, bottom + 6)], FAINT_INK, 1)
        canvas.text((x, bottom + 18), f"{tick:.10g}", 14, FAINT_INK, "mm")
    canvas.line([(left, top), (left, bottom), (right, bottom)], FAINT_INK, 1.5)
    canvas.text(((left + right) / 2, 522), "step", 14, FAINT_INK, "mm")
    for number, values in enumerate(series.values()):  # first, so that no faint line crosses a bold one
        faint = tuple(round(0.28 * part + 0.72 * 255) for part in LINES[number % len(LINES)])
        canvas.polyline([place(step + 1, v) for step, v in enumerate(values) if np.isfinite(v)], faint, 1)
    slot = (right - left) / len(series)
    for number, (name, values) in enumerate(series.items()):
        colour = LINES[number % len(LINES)]
        canvas.polyline([place(step, v) for step, v in _running_mean(values, smoothing)], colour, 2.5)
        x = left + number * slot
        canvas.line([(x, 58), (x + 26, 58)], colour, 4)
        canvas.text((x + 34, 58), name, 14, anchor="lm", width=slot - 46)
    return canvas.tensor()


def share_bars(
    shares: Sequence[tuple[str, float]],
    overlaps: Sequence[tuple[str, float]] = (),
    title: str = "Share of entries selected",
) -> Tensor:
    """Bars of the share selected in each projection, beneath them overlap (IoU) with each earlier concept.

    Shares and overlaps lie in [0, 1], else ValueError; labels of any length are shortened in the middle.
    (1, H, W, 3), taller and wider with more bars.
    """
    wrong = [(label, value) for label, value in [*shares, *overlaps] if not 0.0 <= value <= 1.0]
    if not shares or wrong:
        raise ValueError(f"Expected at least one share, in [0, 1]; got {len(shares)}, wrong: {wrong[:3]}.")
    columns = math.ceil(len(shares) / BARS_IN_COLUMN)
    rows = math.ceil(len(shares) / columns)
    pitch, column_width, head = 18, 560 if columns > 1 else 760, 92
    below = head + rows * pitch + 24
    height = below + (40 + len(overlaps) * 24 + 12 if overlaps else 0)
    canvas = Canvas(columns * column_width, height)
    width = columns * column_width
    canvas.text((width / 2, 24), title, 20, anchor="mm", width=width - 40)
    highest = ticks(0.0, max(share for _, share in shares) or 1.0)[-1]
    mean = sum(share for _, share in shares) / len(shares)
    note = f"{len(shares)} projections, mean {_percent(mean)}; a full bar is {_percent(highest)}"
    canvas.text((width / 2, 54), note, 14, FAINT_INK, "mm", width - 40)
    for number, (label, share) in enumerate(shares):
        column, row = divmod(number, rows)
        top = head + row * pitch
        box = (column * column_width + 16.0, top + 2.0, (column + 1) * column_width - 16.0, top + pitch - 2.0)
        canvas.bar(box, label, share / highest, _percent(share), 12)
    if overlaps:
        canvas.line([(16, below - 2), (width - 16, below - 2)], GRID, 1)
        canvas.text((16, below + 20), "Overlap (IoU) with earlier concepts; a full bar is 1", 14, anchor="lm")
    for number, (label, iou) in enumerate(overlaps):
        top = below + 40 + number * 24
        box = (16.0, top + 2.0, column_width - 16.0, top + 20.0)
        canvas.bar(box, label, iou, f"{iou:.3f}", 14)
    return canvas.tensor()


def gain_bars(gains: Sequence[float], heard: Sequence[tuple[str, float]] = ()) -> Tensor:
    """Bars of the directions' gains on a scale of powers of ten, beneath them the share in [0, 1] of what is
    learned along them that each earlier concept hears. (1, H, 760, 3), taller with more bars.

    ValueError for a gain that is not above 0, or a share outside its range.
    """
    wrong = [gain for gain in gains if not 0 < gain < math.inf] + [s for _, s in heard if not 0.0 <= s <= 1.0]
    if wrong:
        raise ValueError(f"Expected gains above 0 and shares in [0, 1]; got {wrong[:3]}.")
    pitch, head, width = 24, 92, 760
    below = head + len(gains) * pitch + 24
    canvas = Canvas(width, below + (40 + len(heard) * pitch + 12 if heard else 0))
    canvas.text(
        (width / 2, 24), "Directions of the concept's own: forecast", 20, anchor="mm", width=width - 40
    )
    low, high = -1, max(1, math.ceil(math.log10(max(gains, default=10.0))))
    note = (
        f"gain: how many times as loud as all that is protected; a full bar is {10**high:,}, an empty one 0.1"
    )
    canvas.text((width / 2, 54), note, 14, FAINT_INK, "mm", width - 40)
    for number, gain in enumerate(gains):
        top = head + number * pitch
        share = min(1.0, max(0.0, (math.log10(gain) - low) / (high - low)))
        canvas.bar(
            (16.0, top + 2.0, width - 16.0, top + 20.0), f"direction {number + 1}", share, f"{gain:.3g}", 14
        )
    if heard:
        canvas.line([(16, below - 2), (width - 16, below - 2)], GRID, 1)
        title = "What earlier concepts hear of it; a full bar is all of it"
        canvas.text((16, below + 20), title, 14, anchor="lm")
    for number, (label, share) in enumerate(heard):
        top = below + 40 + number * pitch
        box = (16.0, top + 2.0, width - 16.0, top + 20.0)
        canvas.bar(box, label, share, _percent(share), 14)
    return canvas.tensor()


def _running_mean(values: np.ndarray, smoothing: float) -> list[tuple[int, float]]:
    """(step, mean) from step 1, the exponential mean divided by the weight seen so far."""
    total = weight = 0.0
    means: list[tuple[int, float]] = []
    for step, value in enumerate(values, start=1):
        if np.isfinite(value):
            total = smoothing * total + (1 - smoothing) * float(value)
            weight = smoothing * weight + (1 - smoothing)
            means.append((step, total / weight))
    return means


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
