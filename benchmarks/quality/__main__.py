"""How well concepts are learned on the small base, and how little is forgotten.

    python3 dev.py bench learning                              each of the 20 concepts alone
    python3 dev.py bench learning --set 1 --seeds 3 \\
        --methods "all K/V" "random entries" "cns without L_reg" cns directions
    python3 dev.py bench learning --four --seeds 3 --draw never --methods cns directions

Without --set, --stream, --four or --all each concept is learned alone. With it they are learned one after
another, and every concept is looked at again after each. Fit is the error of predicting the noise in its own
pictures, drift how far predictions for other prompts have moved (`fixed_noise.py`). A score is CLIP-I of what
is drawn, on a scale from 0, the base drawing the class word, to 1, the concept's own pictures against each
other; it can leave both ends. Every finished run is a line in the output file, and a run that is in it is not
made again; what was drawn lies in the folder beside it.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from devtools.paths import ROOT
from devtools.staging import JUDGE, SHIPPED_CONCEPTS

from .jobs import Do, Record, Records
from .pictures import write_sheets
from .report import score_of, summary
from .streams import AT_THE_END, EACH, FOURS, NEVER, every_concept, folders_of_set, stream_job
from .variants import DEFAULTS, SETTINGS, VARIANTS
from .worker import Worker


def main() -> int:
    """Run the command line; returns the exit code."""
    options = build_parser().parse_args()
    options.streams = streams_of(options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(options, name) for name, _, _ in SETTINGS}
    if options.top_percent:
        settings |= {"select_by": "top percent", "top_percent": options.top_percent}
    do = Worker(options.output, options.checkpoint, options.clip_model, options.resolution, options.cfg)
    results = run(options, settings, do)
    print(summary(results))
    for path in write_sheets(results, options.output, SHIPPED_CONCEPTS):
        print(path)
    return 0


def run(options: argparse.Namespace, settings: dict[str, Any], do: Do) -> list[Record]:
    """Do every run that is asked for and not in the output file yet; all of their records."""
    base = {"resolution": options.resolution, "cfg": options.cfg}
    if options.checkpoint is not None:
        base["base"] = options.checkpoint.stem
    records = Records(options.output, DEFAULTS)
    jobs = [
        stream_job(stream, method, seed, options.draw, settings, **base)
        for seed in range(options.seeds)
        for stream in options.streams
        for method in options.methods
    ]
    results = []
    for job in jobs:
        found = records.of(job) or records.add(job, do(job))
        results.append(found)
        print(_line(found), flush=True)
    return results


def streams_of(options: argparse.Namespace) -> list[list[str]]:
    """The folders of the concepts of each stream that is asked for."""
    if options.set:
        return [folders_of_set(options.set)]
    if options.stream:
        return [options.stream]
    if options.four:
        return [list(stream) for stream in FOURS]
    return [options.concepts] if options.all else [[folder] for folder in options.concepts]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="dev.py bench learning", description=__doc__, formatter_class=layout
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="of the small base; default: the one in this repository"
    )
    parser.add_argument(
        "--clip-model", type=Path, default=JUDGE, help="a CLIP folder; default: the small judge"
    )
    every = [concept.folder.name for concept in every_concept()]
    parser.add_argument("--concepts", nargs="+", choices=every, default=every, metavar="NAME")
    streams = parser.add_mutually_exclusive_group()
    streams.add_argument("--stream", nargs="+", choices=every, metavar="NAME", help="learn these in order")
    streams.add_argument("--set", type=int, choices=(1, 2, 3), help="learn this ordered set of seven")
    streams.add_argument("--four", action="store_true", help="learn four streams of four concepts")
    streams.add_argument("--all", action="store_true", help="learn all of --concepts in one stream")
    parser.add_argument(
        "--draw", choices=(EACH, AT_THE_END, NEVER), default=EACH, help="when to draw and score"
    )
    parser.add_argument("--methods", nargs="+", choices=tuple(VARIANTS), default=["cns"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--resolution", type=int, default=64)
    for name, default, help_text in SETTINGS:
        words = f"{help_text.replace('%', '%%')} (%(default)s)"
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=words)
    parser.add_argument("--top-percent", type=float, default=0.0, help="k of Eq. 3, in place of the budget")
    parser.add_argument("--cfg", type=float, default=3.0)
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "demo_output" / "learning.jsonl",
        help="of the runs; other settings draw over the same pictures, so give them a file of their own",
    )
    return parser


def _line(record: dict[str, Any]) -> str:
    last = record["stages"][-1]
    fit = statistics.mean(last["fit"].values())
    line = f"{' -> '.join(record['stream'])}, {record['method']}, seed {record['seed']}: mean fit {fit:.4f}"
    if not last["scores"]:
        return line
    scores = [score for found in last["scores"].values() if (score := score_of(found)) == score]
    return f"{line}, mean score {statistics.mean(scores):.3f}" if scores else line


if __name__ == "__main__":
    raise SystemExit(main())
