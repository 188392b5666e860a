"""The figures of a run as tables and as a page with a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .bars import FLOOR, NATIVE, held_against

Record = Mapping[str, Any]
# Rounding alone may lift a ratio of two equal things this far above 1.
_NOISE = 0.01


def text(records: Sequence[Record]) -> str:
    """Markdown: for each model its loops, its other figures, and the bars."""
    return "\n\n".join(_of_model(records, model) for model in _models(records))


def write_report(records: Sequence[Record], path: Path) -> None:
    """A page at `path` and its plot beside it, in `images/`."""
    plot = path.parent / "images" / f"{path.stem}.png"
    plot.parent.mkdir(parents=True, exist_ok=True)
    _plot(records, plot)
    head = path.read_text(encoding="utf-8").split(_BEGIN)[0] if path.exists() else "# Speed and memory\n\n"
    page = f"{head}{_BEGIN}\n\n![The same in a plot](images/{plot.name})\n\n{text(records)}\n"
    path.write_text(page, encoding="utf-8")


_BEGIN = "<!-- what follows is written by: python3 dev.py bench speed --report docs/speed.md -->"


def _of_model(records: Sequence[Record], model: str) -> str:
    mine = [record for record in records if record["model"] == model]
    first = mine[0]
    parts = [
        f"## {model}, {first['pixels']} px, batch {first['batch']}, {first['dtype']}, {first['device']}, "
        f"torch {first['torch']}"
    ]
    loops = [record for record in mine if "median_s" in record]
    if loops:
        parts.append(_loops(loops))
    others = [record for record in mine if "median_s" not in record and "points" not in record]
    if others:
        parts.append(_others(others))
    parts += [_points(record) for record in mine if "points" in record]
    if bars := held_against(records, model):
        parts.append(_bars(bars))
    return "\n\n".join(parts)


def _loops(records: Sequence[Record]) -> str:
    by_name = {record["what"]: record for record in records}
    rows = []
    for record in records:
        ratios = [
            f"{record['median_s'] / by_name[other]['median_s']:.2f}" if other in by_name else ""
            for other in (FLOOR, NATIVE)
        ]
        spread = f"{record['least_s']:.3f} - {record['most_s']:.3f}"
        rows.append(
            [record["what"], f"{record['median_s']:.3f}", spread, *ratios, f"{record['peak_mb']:.0f}"]
        )
    return _table(["loop", "s a step", "from - to", "x floor", "x TrainLoraNode", "peak MB"], rows)


def _others(records: Sequence[Record]) -> str:
    shared = ("what", "model", "pixels", "batch", "dtype", "device", "torch")
    rows = [
        [record["what"], key, f"{value:.3f}"]
        for record in records
        for key, value in record.items()
        if key not in shared
    ]
    return _table(["figure", "", ""], rows)


def _points(record: Record) -> str:
    keys = list(record["points"][0])
    rows = [[f"{point[keys[0]]}", *(f"{point[key]:.3f}" for key in keys[1:])] for point in record["points"]]
    return _table(keys, rows)


def _bars(bars: Sequence[tuple[str, float, float]]) -> str:
    rows = [
        [what, f"{found:.2f}", f"{most:g}", "yes" if found <= most + _NOISE * most else "**no**"]
        for what, found, most in bars
    ]
    return _table(["bar", "found", "at most", "met"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _models(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(record["model"] for record in records))


def _plot(records: Sequence[Record], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = _models(records)
    figure, axes = pyplot.subplots(len(models), 3, figsize=(15, 4.2 * len(models)), squeeze=False)
    for row, model in zip(axes, models, strict=True):
        mine = {record["what"]: record for record in records if record["model"] == model}
        loops = [record for record in mine.values() if "median_s" in record]
        row[0].set_title(f"{model}: seconds a step")
        bars = row[0].barh(
            [record["what"] for record in loops],
            [record["median_s"] for record in loops],
            color=["#d65d0e" if record["what"].startswith("Continual") else "#2063b2" for record in loops],
        )
        row[0].bar_label(bars, fmt="%.2f", padding=3)
        row[0].invert_yaxis()
        row[0].margins(x=0.15)
        for axis, what in ((row[1], "concepts"), (row[2], "steps")):
            points = mine.get(what, {}).get("points", [])
            axis.set_title(f"{model}: growth with the number of {what}")
            for key, label in (
                ("learning_step_s", "a training step"),
                ("drawing_step_s", "a drawing step"),
                ("apply_s", "applying the memory"),
            ):
                if points and key in points[0]:
                    axis.plot([p[what] for p in points], [p[key] for p in points], marker="o", label=label)
            axis.set_xlabel(what)
            axis.set_ylabel("seconds")
            axis.set_ylim(bottom=0)
            if points:
                axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=80)
