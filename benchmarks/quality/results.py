"""`dev.py bench results`: docs/results.md, from the records of the suites.

    python3 dev.py bench results                             from docs/*.jsonl
    python3 dev.py bench results --records a.jsonl b.jsonl --output results.md      and README left as it is

Of each suite what is recorded so far, with the number of runs and their spread; the paper's printed figures
beside ours where it has any. What is not recorded is said to be missing, with the command that makes it.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cns_core.methods import METHODS
from cns_core.settings import described
from devtools.paths import ROOT

from . import entries, report, unlearn
from .jobs import Job, Record, Records
from .plots import plot_first, plot_masks, plot_trade
from .suites import SUITES, SWEEPS, Asked, methods_of
from .variants import DEFAULTS, SETTINGS

PAGE, README = ROOT / "docs" / "results.md", ROOT / "README.md"
_BEGIN, _END = "<!-- made by dev.py bench results -->", "<!-- end -->"
_SEEDS = 10  # looked for
# Table 1 of the paper, on SD 1.5: single CLIP-I and CLIP-T, then of several concepts in one picture.
PRINTED: Mapping[str, tuple[float, float, float, float]] = {
    "token alone": (72.76, 72.69, 65.30, 65.00),
    "custom diffusion": (67.88, 74.92, 65.87, 68.70),
    "mix-of-show": (75.86, 75.75, 65.26, 70.62),
    "orthogonal adaptation": (74.67, 74.87, 66.37, 69.20),
    "continual diffusion": (71.82, 66.12, 66.15, 60.30),
    "cns": (74.88, 76.95, 67.21, 79.22),
    # Table 2
    "random entries": (73.15, 73.30, 65.05, 72.92),
    "cns without L_reg": (73.06, 74.65, 66.89, 77.02),
}
CLIP_I, CLIP_T = 100, 250  # the paper's scale: of CLIP-T 100 times 2.5 times the cosine
_INTRODUCTION = """# Results

Made by `python3 dev.py bench results` of the records in this folder. Every figure is a mean over runs, with
the lowest and the highest run in brackets, where they are apart, and the number of runs beside it. The base
is the small one of `small_base`, a world of emoji scenes of 64 pixels: what is said here says which method is
the better one there. What the paper printed was measured on SD 1.5 with photos and another CLIP. Its figures
stand beside ours for the order of the methods, not to be compared one with one.

Definitions: [learning.md](learning.md), `benchmarks/quality/judge.py`, `benchmarks/quality/fixed_noise.py`.
*Of the way* is the fit on a scale from the class word's (0) to the best that any run of the same table has
reached (1). *As others* is what a concept's pictures score as other concepts of the stream; *own prompt
nearest* the share of pictures that CLIP finds nearer to their own prompt than to the seven others, which ask
for other places and colours; CLIP-T the cosine of a picture and its prompt. One concept, *openmoji*, a style,
has no score: its given pictures are less like each other than what the base draws of its class word is like
them, so that its scale stands on its head. The settings of directions were tried on the first stream, those
of other methods on the panda (methods.md): both are among what is compared. Records that do not tell the
commit that made them are of earlier code, whose text encoders trained in float32. Seconds are of whatever
machine made the run, most of them of one core of two that others used too. In a plot a dot is a run, and a
diamond the mean of a method.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="dev.py bench results", description=__doc__, formatter_class=layout)
    parser.add_argument("--records", nargs="+", type=Path, help="default: learning.jsonl and others in docs/")
    parser.add_argument("--output", type=Path, default=PAGE)
    options = parser.parse_args(words)
    files = options.records or recorded()
    write(files, options.output)
    print(options.output)
    if options.output == PAGE:
        README.write_text(with_table(README.read_text(encoding="utf-8"), files), encoding="utf-8")
        print(README)
    return 0


def recorded() -> list[Path]:
    """The files of records that come with the pack."""
    return sorted((ROOT / "docs").glob("*.jsonl"))


def with_table(readme: str, files: Sequence[Path]) -> str:
    """README with its table of methods as the records have it, between its two marks."""
    before, _, rest = readme.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    found = _of_suite("ablation", _read(files))
    return f"{before}{_BEGIN}\n{_short_table(found)}\n{_END}{after}"


def _short_table(records: Sequence[Record]) -> str:
    """What is learned, forgotten and moved, method by method, the best first."""
    best = report.best_fits(records)
    rows = []
    for method in dict.fromkeys(record["method"] for record in records):
        runs = [record["stages"] for record in records if record["method"] == method]
        ways = [report.way(stages, best) for stages in runs]
        _, _, rises, drifts, _ = zip(*(report.fits(stages) for stages in runs), strict=True)
        cells = [report.spread(ways, ".0%")]
        cells += [report.spread([max(0.0, v) for v in values], ".3f") for values in (rises, drifts)]
        rows.append((statistics.mean(ways), f"| {method} | {' | '.join(cells)} | {len(runs)} |"))
    lines = ["| method | learned, of what any reached | forgotten | change elsewhere | runs |"]
    lines.append("|---|---|---|---|---|")
    return "\n".join([*lines, *(row for _, row in sorted(rows, reverse=True))])


def _read(files: Sequence[Path]) -> list[Records]:
    """ValueError for a file with a line that is no record."""
    return [Records(path, DEFAULTS) for path in files]


def write(files: Sequence[Path], output: Path) -> None:
    """The whole page, and its plots in `images/` beside it. ValueError for a file with a line that is no
    record.
    """
    known, parts = _read(files), [_INTRODUCTION]
    for name, (title, tables) in _SECTIONS.items():
        found = _of_suite(name, known)
        told = "\n\n".join(filter(None, [*_plotted(name, title, found, output), *tables(found)]))
        one, three = (f"{done} of {wanted}" for done, wanted in (_done(name, known, n) for n in (1, 3)))
        left = f"Of the runs of `python3 dev.py bench {name}` with one seed {one} are recorded"
        left += "." if three == one else f", and with three {three}."
        parts.append("\n\n".join([f"## {title}", told or "Nothing is recorded yet.", left]) + "\n")
    output.write_text("\n".join(parts), encoding="utf-8")


def _plotted(name: str, title: str, records: Sequence[Record], output: Path) -> list[str]:
    """The plots of a suite, as Markdown."""
    lines = []
    for kind in _PLOTS.get(name, ()):
        path = output.parent / "images" / f"{output.stem}_{name}_{kind.__name__.removeprefix('plot_')}.png"
        if kind(records, path, title):
            lines.append(f"![{title}: {(kind.__doc__ or '').split('.')[0].lower()}](images/{path.name})")
    return [" ".join(" ".join(lines).split())]


def _done(name: str, known: Sequence[Records], seeds: int) -> tuple[int, int]:
    """How many of a suite's own runs are recorded, and how many there are."""
    own = _jobs(name, (), seeds)
    return sum(any(records.of(job) is not None for records in known) for job in own), len(own)


def _jobs(name: str, methods: Sequence[str], seeds: int) -> list[Job]:
    """Each once: a sweep has the default among the values of every setting."""
    settings = {setting: default for setting, default, _ in SETTINGS}
    found: list[Job] = []
    for job in SUITES[name](Asked(tuple(methods), seeds, False, settings)):
        if job not in found:
            found.append(job)
    return found


def _of_suite(name: str, known: Sequence[Records]) -> list[Record]:
    """What is recorded of a suite, by any method and seed."""
    every = _jobs(name, methods_of(name), _SEEDS)
    found: list[Record] = []
    # Of what was run twice, the run of the suite itself.
    own_first = sorted(known, key=lambda records: records.path.stem != name)
    for job in every:
        record = next((r for records in own_first if (r := records.of(job)) is not None), None)
        if record is not None and record not in found:
            found.append(record)
    return found


def _streams(records: Sequence[Record]) -> list[str]:
    if not records:
        return []
    return [report.summary(records), report.places(records), report.costs(records)]


def _paper(records: Sequence[Record]) -> list[str]:
    """Table 1: our figures in the paper's scale, and its own."""
    lines = [
        "| method | runs | single CLIP-I / CLIP-T | several | printed: single | printed: several |",
        "|---|---|---|---|---|---|",
    ]
    for method in dict.fromkeys(record["method"] for record in records):
        runs = [r["set_prompts"] for r in records if r["method"] == method and "set_prompts" in r]
        if not runs:
            continue
        single = _scaled(runs, ("single",))
        several = _scaled(runs, ("double", "triple"))
        printed = PRINTED.get(method)
        theirs = (
            ["", ""] if printed is None else [f"{a:.2f} / {b:.2f}" for a, b in (printed[:2], printed[2:])]
        )
        lines.append(f"| {method} | {len(runs)} | {single} | {several} | {' | '.join(theirs)} |")
    table = "\n".join(lines) if len(lines) > 2 else ""
    return [table, *_streams(records), report.confusion(records)]


def _scaled(runs: Sequence[Mapping[str, Any]], groups: Sequence[str]) -> str:
    """CLIP-I and CLIP-T: means over the pictures of some groups of prompts, and their spread over runs."""
    figures = []
    for name, scale in (("clip_i", CLIP_I), ("clip_t", CLIP_T)):
        values = []
        for run in runs:
            pictures = sum(run[group]["pictures"] for group in groups)
            values.append(scale * sum(run[g][name] * run[g]["pictures"] for g in groups) / pictures)
        figures.append(report.spread(values, ".2f"))
    return " / ".join(figures)


def _forgetting(records: Sequence[Record]) -> list[str]:
    """Fig. 5: the score of the first concept against how many have been learned."""
    drawn = [record for record in records if all(stage["scores"] for stage in record["stages"])]
    if not drawn:
        return []
    longest = max(len(record["stages"]) for record in drawn)
    lines = [
        f"| method | runs | {' | '.join(str(count) for count in range(1, longest + 1))} |",
        "|---|---|" + "---|" * longest,
    ]
    for method in dict.fromkeys(record["method"] for record in drawn):
        mine = [r["stages"] for r in drawn if r["method"] == method and len(r["stages"]) == longest]
        cells = []
        for place in range(longest if mine else 0):
            values = [report.score_of(stages[place]["scores"][stages[0]["learned"]]) for stages in mine]
            cells.append(report.spread(values, ".2f"))
        if cells:
            lines.append(f"| {method} | {len(mine)} | {' | '.join(cells)} |")
    return ["The score of the first concept after so many have been learned:\n\n" + "\n".join(lines)]


def _ablation(records: Sequence[Record]) -> list[str]:
    """Table 2, with what the paper printed."""
    lines = ["| method | printed: single CLIP-I / CLIP-T | printed: several |", "|---|---|---|"]
    for method in dict.fromkeys(record["method"] for record in records):
        if (printed := PRINTED.get(method)) is not None:
            single, several = (f"{a:.2f} / {b:.2f}" for a, b in (printed[:2], printed[2:]))
            lines.append(f"| {method} | {single} | {several} |")
    return [*_alike(records), "\n".join(lines) if len(lines) > 2 else ""]


def _alike(records: Sequence[Record]) -> list[str]:
    return [report.confusion(records), *_streams(records)]


def _overlap(records: Sequence[Record]) -> list[str]:
    return [report.overlaps(records)]


def _sweep(records: Sequence[Record]) -> list[str]:
    """A row for each value of each setting that is swept."""
    lines = ["| method | setting | value | runs | fit at the end | its rise | drift | class drift |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for method, settings in SWEEPS.items():
        of_method = METHODS[method]
        own = {**described(of_method.Selection), **described(of_method.Training)}
        defaults = {name: default for name, (default, _) in own.items()}
        defaults |= {name: default for name, default, _ in SETTINGS}
        mine = [record for record in records if record["method"] == method]
        for setting, values in settings.items():
            for value in values:
                runs = [r["stages"] for r in mine if _is_by(r, settings, setting, value, defaults)]
                if not runs:
                    continue
                figures = [report.fits(stages)[1:] for stages in runs]
                cells = (report.spread(column, ".4f") for column in zip(*figures, strict=True))
                shown = value if isinstance(value, str) else f"{value:g}"
                lines.append(f"| {method} | {setting} | {shown} | {len(runs)} | {' | '.join(cells)} |")
    return ["\n".join(lines)] if len(lines) > 2 else []


def _is_by(
    record: Record, swept: Mapping[str, Any], setting: str, value: Any, defaults: Mapping[str, Any]
) -> bool:
    """Whether a run has this value of a setting, and the bench's own of all others that are swept."""
    wanted = {**{name: defaults[name] for name in swept}, setting: value}
    return all(record.get(name, defaults[name]) == of_it for name, of_it in wanted.items())


Tables = Callable[[Sequence[Record]], list[str]]
_SECTIONS: dict[str, tuple[str, Tables]] = {
    "paper": ("Three sets of seven (Table 1)", _paper),
    "ablation": ("Four streams of four (Table 2, and methods besides)", _ablation),
    "forgetting": ("The first concept as more are learned (Fig. 5)", _forgetting),
    "overlap": ("Concept neurons of eleven prompts (Fig. 7)", _overlap),
    "entries": ("Entries or directions", lambda records: [entries.table(records)]),
    "long": ("All twenty in one stream", _alike),
    "order": ("Other orders of the first set", _alike),
    "alike": ("Concepts that are easily taken for each other", _alike),
    "methods": ("One concept by every method", _streams),
    "joining": ("Learned apart and joined, or one after another", _alike),
    "sweep": ("One setting at a time", _sweep),
    "unlearn": ("A word erased", lambda records: [unlearn.table(records)]),
}


_PLOTS: Mapping[str, tuple[Callable[[Sequence[Record], Path, str], bool], ...]] = {
    "paper": (plot_trade, plot_first),
    "ablation": (plot_trade, plot_first),
    "forgetting": (plot_first,),
    "overlap": (plot_masks,),
    "long": (plot_trade, plot_first),
    "order": (plot_first,),
    "methods": (plot_trade,),
    "joining": (plot_trade,),
}


if __name__ == "__main__":
    raise SystemExit(main())
