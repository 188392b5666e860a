"""What the suites found, as plots: each run is a dot, so that the spread is seen, each method a colour."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import report
from .jobs import Record

_COLOURS = 10  # that are told apart at a glance; of more methods each has its name beside it
_LEAST_RISE = 0.01  # that an axis shows, so that one which is nothing looks like nothing
_LEAST_DRIFT = 1e-4  # where less than that is drawn, on a scale of powers of ten


def plot_trade(records: Sequence[Record], path: Path, title: str) -> bool:
    """What is learned at the end against how far everything else has moved. False where there are no two
    methods to compare.
    """
    best = report.best_fits(records)
    found: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        stages = record["stages"]
        if not math.isnan(learned := report.way(stages, best)):
            drift = max(stages[-1]["drift"], _LEAST_DRIFT)
            found.setdefault(record["method"], []).append((drift, learned))
    if len(found) < 2:
        return False
    figure, axis = _axes(title)
    places: dict[tuple[float, float], list[str]] = {}
    for colour, (method, dots) in zip(_colours(found), found.items(), strict=True):
        axis.scatter(*zip(*dots, strict=True), s=18, color=colour, alpha=0.5, linewidths=0)
        middle = [statistics.mean(values) for values in zip(*dots, strict=True)]
        label = f"{method} ({len(dots)})"
        axis.scatter(*middle, s=90, marker="D", color=colour, edgecolor="white", label=label)
        place = (float(f"{middle[0]:.2g}"), round(middle[1], 3))
        places.setdefault(place, []).append(method)
    for place, names in places.items() if len(found) > _COLOURS else ():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        axis.annotate(f"{names[0]}{more}", place, xytext=(6, -2), textcoords="offset points", fontsize=7)
    axis.set_xscale("log")
    axis.set_xlabel(
        f"drift of prompts without a learned token (less than {_LEAST_DRIFT:g}: at the left edge)"
    )
    axis.set_ylabel("learned at the end: of the way from the class word to the best")
    _save(figure, axis, path)
    return True


def plot_first(records: Sequence[Record], path: Path, title: str) -> bool:
    """The fit of the first concept against how many have been learned: the mean over runs, and all of them as
    a band. False where there is nothing to plot.
    """
    runs: dict[str, list[list[float]]] = {}
    for record in records:
        stages = [stage for stage in record["stages"] if "learned" in stage]
        if len(stages) > 1 and all(stages[0]["learned"] in stage["fit"] for stage in stages):
            fits = [stage["fit"][stages[0]["learned"]] for stage in stages]
            runs.setdefault(record["method"], []).append([fit - fits[0] for fit in fits])
    if not runs:
        return False
    figure, axis = _axes(title)
    for colour, (method, found) in zip(_colours(runs), runs.items(), strict=True):
        columns = [[run[n] for run in found if n < len(run)] for n in range(max(map(len, found)))]
        counts = range(1, len(columns) + 1)
        axis.fill_between(counts, [*map(min, columns)], [*map(max, columns)], color=colour, alpha=0.15, lw=0)
        means = [statistics.mean(column) for column in columns]
        axis.plot(counts, means, color=colour, marker="o", ms=3, label=f"{method} ({len(found)})")
    axis.set_xlabel("concepts learned")
    axis.set_ylabel("rise of the first concept's error")
    axis.set_ylim(top=max(_LEAST_RISE, axis.get_ylim()[1]))
    axis.xaxis.get_major_locator().set_params(integer=True)
    _save(figure, axis, path)
    return True


def plot_masks(records: Sequence[Record], path: Path, title: str) -> bool:
    """How far the masks of prompts are the same, for each score and each choice of tokens that count. False
    where there is nothing to plot.
    """
    if not records:
        return False
    from .overlap import PROMPTS

    pyplot = _pyplot()
    names = [rest.replace("{}", noun).removeprefix("a ") for noun, rest in PROMPTS]
    across = min(3, len(records))
    down = math.ceil(len(records) / across)
    figure, axes = pyplot.subplots(
        down, across, figsize=(4.2 * across + 2, 3.9 * down + 1), squeeze=False, layout="constrained"
    )
    figure.suptitle(title)
    for number, (axis, record) in enumerate(zip(axes.flat, records, strict=False)):
        shown = axis.imshow(record["iou"], vmin=0, vmax=1, cmap="viridis")
        axis.set_title(f"{record['score']}\n{record['tokens']}", fontsize=9)
        axis.set_yticks(range(len(names)), names if number % across == 0 else [], fontsize=7)
        lowest = number // across == down - 1
        axis.set_xticks(range(len(names)), names if lowest else [], fontsize=7, rotation=90)
    for axis in axes.flat[len(records) :]:
        axis.axis("off")
    figure.colorbar(shown, ax=axes, label="intersection over union", shrink=0.6)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
    return True


def _colours(methods: Mapping[str, Any]) -> list[Any]:
    from matplotlib import colormaps

    known = colormaps["tab10" if len(methods) <= _COLOURS else "tab20"]
    return [known(number % known.N) for number in range(len(methods))]


def _axes(title: str) -> tuple[Any, Any]:
    figure, axis = _pyplot().subplots(figsize=(9, 5.5))
    axis.set_title(title)
    axis.grid(color="0.9")
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, axis: Any, path: Path) -> None:
    axis.legend(
        frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.06, 0.5), title="method (runs)"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    _pyplot().close(figure)
