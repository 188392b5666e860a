"""The figures of a run as tables and as a page with a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .bars import FLOOR, NATIVE, Verdict, held_against

Record = Mapping[str, Any]


def text(records: Sequence[Record]) -> str:
    """Markdown: for each setting its loops, its other figures, and the bars."""
    return "\n\n".join(_of_one_setting(mine) for mine in _by_setting(records))


def write_report(records: Sequence[Record], path: Path) -> None:
    """A page at `path` and, of loops and curves, a plot beside it, in `images/`."""
    head = path.read_text(encoding="utf-8").split(_BEGIN)[0] if path.exists() else "# Speed and memory\n\n"
    parts = [f"{head}{_BEGIN}", text(records)]
    if plotted := [g for g in _by_setting(records) if any("median_s" in r or "points" in r for r in g)]:
        plot = path.parent / "images" / f"{path.stem}.png"
        plot.parent.mkdir(parents=True, exist_ok=True)
        _plot(plotted, plot)
        parts.insert(1, f"![The same in a plot](images/{plot.name})")
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


# What to call the numbers that are neither a loop's nor a curve's, and how many decimals tell something.
_FIGURES = {
    "step_s": ("seconds a training step, a bare pass after each", 3),
    "bare_s": ("seconds a bare forward and backward, a training step after each", 3),
    "over_ratio": ("the ratio of the two, pair by pair", 3),
    "over_low": ("its lower quartile", 3),
    "over_high": ("its upper quartile", 3),
    "selection_s": ("seconds to score and rank", 2),
    "first_encoding_s": ("seconds to encode, the first time: with the calibration prompts", 2),
    "later_encoding_s": ("seconds to encode, later: its captions alone", 2),
    "apply_s": ("seconds to apply 20 concepts", 2),
    "apply_peak_mb": ("MB at most while applying, beyond the loaded models", 1),
    "plain_step_s": ("seconds a step of the plain model", 3),
    "memory_step_s": ("seconds a step with 20 concepts", 3),
    "ratio": ("the ratio of the two, turn by turn", 3),
    "ratio_of_a_clone": ("the same for a clone of the plain model: what noise alone does", 3),
    "mb_a_concept": ("MB of file a concept", 2),
    "save_s": ("seconds to write 20 concepts", 2),
    "load_s": ("seconds to read them", 2),
    "values_mb": ("MB of their values", 1),
    "load_peak_mb": ("MB at most while reading", 1),
    "value_bytes": ("bytes an entry for its value", 2),
    "moment_bytes": ("bytes an entry for the optimizer", 2),
    "position_bytes": ("bytes an entry for its place", 2),
    "import_s": ("seconds to import the pack and describe its nodes", 3),
    "as_is_s": ("seconds a training step as it is", 3),
    "directions_ratio": ("x that, by directions", 3),
    "in_the_weights_ratio": ("x a step by directions, what they add put into the weights", 3),
    "one_by_one_ratio": ("x that, the captions of a batch encoded one by one", 3),
    "text_in_float32_ratio": ("x that, the text encoder in float32", 3),
    "loss": ("loss of the first step", 6),
    "loss_fp32": ("loss in float32 on the CPU", 6),
    "neuron_cosine": ("cosine between the gradients of the neurons", 6),
    "token_cosine": ("cosine between the gradients of the token", 6),
    "text_off": ("how far the text features are from float32's, of their norm", 5),
    "text_rounded": ("how far rounding float32's to bfloat16 moves them", 5),
}
_COLUMNS = {
    "learning_step_s": "s a training step",
    "learning_peak_mb": "peak MB of training",
    "apply_s": "s to apply",
    "drawing_step_s": "s a drawing step",
    "file_mb": "MB of file",
    "so_far_s": "s since the start",
}
_BEGIN = "<!-- what follows is written by: python3 dev.py bench speed --report docs/speed.md -->"


def setting(record: Record) -> tuple[Any, ...]:
    """What figures have to share to be held against each other."""
    return tuple(record[key] for key in ("model", "pixels", "batch", "dtype", "device", "torch"))


def _by_setting(records: Sequence[Record]) -> list[list[Record]]:
    settings = dict.fromkeys(map(setting, records))
    return [[record for record in records if setting(record) == one] for one in settings]


def _of_one_setting(mine: Sequence[Record]) -> str:
    model, pixels, batch, dtype, device, torch = setting(mine[0])
    parts = [f"## {model}, {pixels} px, batch {batch}, {dtype}, {device}, torch {torch}"]
    loops = [record for record in mine if "median_s" in record]
    if loops:
        parts.append(_loops(loops))
    others = [record for record in mine if "median_s" not in record and "points" not in record]
    if others:
        parts.append(_others(others))
    parts += [_points(record) for record in mine if "points" in record]
    if bars := held_against(mine, model):
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
    rows = [
        [record["what"], label, f"{record[key]:.{digits}f}"]
        for record in records
        for key, (label, digits) in _FIGURES.items()
        if key in record
    ]
    return _table(["figure", "of what", ""], rows)


def _points(record: Record) -> str:
    keys = list(record["points"][0])
    rows = [[f"{point[keys[0]]}", *(f"{point[key]:.3f}" for key in keys[1:])] for point in record["points"]]
    return _table([_COLUMNS.get(key, key) for key in keys], rows)


def _bars(bars: Sequence[Verdict]) -> str:
    rows = [[b.what, f"{b.found:.2f}", f"{b.most:g}", "yes" if b.met else "**no**"] for b in bars]
    return _table(["bar", "found", "at most", "met"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plot(groups: Sequence[Sequence[Record]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(groups), 4, figsize=(20, 4.4 * len(groups)), squeeze=False, layout="constrained"
    )
    for row, group in zip(axes, groups, strict=True):
        model, mine = (
            f"{group[0]['model']}, {group[0]['dtype']}",
            {record["what"]: record for record in group},
        )
        _plot_loops(row[0], model, [record for record in mine.values() if "median_s" in record])
        concepts, steps = (mine.get(what, {}).get("points", []) for what in ("concepts", "steps"))
        _plot_growth(row[1], model, "concepts", "seconds", concepts, _SECONDS)
        _plot_growth(row[2], model, "concepts", "MB", concepts, _MEGABYTES)
        _plot_growth(row[3], model, "steps", "seconds", steps, _SECONDS)
    figure.savefig(path, dpi=70)
    pyplot.close(figure)


_SECONDS = {
    "learning_step_s": "a training step",
    "drawing_step_s": "a drawing step",
    "apply_s": "applying the memory",
}
_MEGABYTES = {"learning_peak_mb": "peak of training beyond the model", "file_mb": "the file"}


def _plot_loops(axis: Any, model: str, loops: Sequence[Record]) -> None:
    if not loops:
        axis.set_visible(False)
        return
    colours = ["#d65d0e" if record["what"].startswith("Continual") else "#2063b2" for record in loops]
    bars = axis.barh(
        [record["what"] for record in loops], [record["median_s"] for record in loops], color=colours
    )
    axis.bar_label(bars, fmt="%.2f", padding=3)
    axis.set_title(f"{model}: seconds a step")
    axis.invert_yaxis()
    axis.margins(x=0.15)


def _plot_growth(
    axis: Any, model: str, along: str, unit: str, points: Sequence[Record], lines: Mapping[str, str]
) -> None:
    measured = [key for key in lines if points and key in points[0]]
    if not measured:
        axis.set_visible(False)
        return
    for key in measured:
        axis.plot([p[along] for p in points], [p[key] for p in points], marker="o", label=lines[key])
    axis.set_title(f"{model}: {unit} by number of {along}")
    axis.set_xlabel(along)
    axis.set_ylabel(unit)
    axis.margins(y=0.1)
    axis.set_ylim(bottom=0, top=1.1 * max(p[key] for key in measured for p in points))
    axis.legend()
