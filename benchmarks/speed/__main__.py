"""Speed and memory side by side, on models with random weights: training loops, selecting, drawing, keeping.

    python3 dev.py bench speed                              the 44 M layout at 128 px, then SD 1.5 at 256 px
    python3 dev.py bench speed --models sd15 --pixels 512   at another size
    python3 dev.py bench speed --only "TrainLoraNode"       one figure alone

Every figure comes from a process of its own, so that no other one's memory or warm caches are in it; one
that fails is left out, and the exit code is 1. Prints tables, adds JSON lines to --output, and, when --report
is given, writes a page with a plot from all records in that file: of each loop the fastest, else the last.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from devtools.paths import ROOT

from .report import setting, text, write_report

LOOPS = (
    "bare forward and backward",
    "bare, text encoder included",
    "ContinualTrain, no prior",
    "ContinualTrain, no prior, concept 20",
    "ContinualTrain, directions",
    "ContinualTrain, directions, concept 20",
    "ContinualTrain, class images",
    "ContinualTrain, image-free prior",
    "TrainLoraNode",
    "Custom Diffusion",
    "DreamBooth",
)
VARIANTS = (
    "ContinualTrain, channels-last",
    "ContinualTrain, compiled",
    "ContinualTrain, compiled with CUDA graphs",
    "ContinualTrain, gradient checkpointing",
    "ContinualTrain, directions, gradient checkpointing",
)
FIGURES = (
    "over the floor",
    "over the floor, directions",
    "selecting",
    "drawing",
    "drawing, directions",
    "keeping",
    "keeping, directions",
    "state",
    "starting",
    "against fp32 on the CPU",
    "left out",
)
GROWTH = ("concepts", "steps")
PIXELS = {"small": 128, "sd15": 256, "sdxl": 256}


def main() -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args()
    if options.child:
        from .measure import measure

        print(
            json.dumps(
                measure(options.child, options.models[0], options.pixels, options.batch, options.steps)
            )
        )
        return 0
    records, failed = [], []
    variants = VARIANTS if options.variants else ()
    for model in options.models:
        for what in options.only or (*LOOPS, *variants, *FIGURES, *GROWTH):
            if (record := _in_a_process(what, model, options)) is None:
                failed.append(f"{what} on {model}")
                continue
            records.append(record)
            options.output.parent.mkdir(parents=True, exist_ok=True)
            with options.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
    print("\n" + text(records))
    if options.report:
        lines = options.output.read_text(encoding="utf-8").splitlines()
        write_report(best_of_each(lines), options.report)
    for what in failed:
        print(
            f"bench speed: {what} failed (what it said is above; if nothing, memory ran out)", file=sys.stderr
        )
    return int(bool(failed))


def best_of_each(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Of each loop the fastest record, since other programs on the machine only ever slow one down; of each
    other figure the last. In the order of this command's own lists.
    """
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in map(json.loads, lines):
        key = (*setting(record), record["what"])
        if key not in found or record.get("median_s", 0.0) <= found[key].get("median_s", 0.0):
            found[key] = record
    models, names = tuple(PIXELS), (*LOOPS, *VARIANTS, *FIGURES, *GROWTH)
    return sorted(found.values(), key=lambda r: (models.index(r["model"]), names.index(r["what"])))


def _in_a_process(what: str, model: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """A record, or None when the process failed; what it has to say goes to stderr."""
    pixels = options.pixels or PIXELS[model]
    words = ["--models", model, "--pixels", str(pixels), "--batch", str(options.batch)]
    command = [sys.executable, "-m", "benchmarks.speed", *words, "--steps", str(options.steps)]
    done = subprocess.run(
        [*command, "--child", what], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        return None
    line = done.stdout.splitlines()[-1]
    print(line, flush=True)
    return dict(json.loads(line))


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="dev.py bench speed", description=__doc__, formatter_class=layout)
    names = (*LOOPS, *VARIANTS, *FIGURES, *GROWTH)
    parser.add_argument(
        "--models", nargs="+", choices=tuple(PIXELS), default=["small", "sd15"], metavar="MODEL"
    )
    parser.add_argument("--pixels", type=int, help="a side; default: 128 for small, 256 for sd15 and sdxl")
    parser.add_argument("--batch", type=int, default=2, help="pictures a step (%(default)s)")
    parser.add_argument(
        "--steps", type=int, default=8, help="measured after the warm-up; of drawing, rounds (%(default)s)"
    )
    parser.add_argument("--only", nargs="+", choices=names, metavar="FIGURE", help=f"of {', '.join(names)}")
    parser.add_argument("--variants", action="store_true", help=f"also {'; '.join(VARIANTS)}")
    parser.add_argument("--output", type=Path, default=ROOT / "demo_output" / "speed.jsonl")
    parser.add_argument("--report", type=Path, metavar="FILE", help="a page of all in --output")
    parser.add_argument("--child", choices=names, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
