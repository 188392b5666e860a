"""Runs a suite: methods compared on the small base by the same jobs.

    python3 dev.py bench paper --quick                       two methods, one seed, the first three of a set
    python3 dev.py bench paper --methods directions cns --seeds 3
    python3 dev.py bench alike --set steps=300 token_lr=0.003
    python3 dev.py bench sweep --methods directions --ray auto

Every finished job is a line in the output file, and a job that is in it is not done again: stop it whenever
you like, and run it again to go on. What was drawn lies in the folder beside the file. With --ray the jobs
are shared out to the machines of a Ray cluster (`on_ray.py`), and pictures stay on the one that drew them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from devtools.paths import ROOT
from devtools.staging import JUDGE

from . import entries, unlearn
from .jobs import Job, Record, Records, done_here
from .overlap import OVERLAP
from .pictures import write_method_sheet
from .suites import SUITES, Asked, check_methods, given_settings
from .variants import DEFAULTS, SETTINGS
from .worker import CFG, RESOLUTION


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = build_parser().parse_args(words)
    try:
        check_methods(options.suite, options.methods)
        given = given_settings(options.suite, options.set)
        settings = {name: given.get(name, default) for name, default, _ in SETTINGS}
        base = {"resolution": options.resolution, "cfg": options.cfg}
        if options.checkpoint is not None:
            base["base"] = options.checkpoint.stem
        asked = Asked(tuple(options.methods), options.seeds, options.quick, settings, given, base)
        jobs = SUITES[options.suite](asked)
        records = Records(options.output, absent=DEFAULTS)
    except ValueError as error:
        print(f"dev.py bench {options.suite}: {error}", file=sys.stderr)
        return 2
    left = records.missing(jobs)
    print(f"{len(jobs)} jobs, of which {len(jobs) - len(left)} are done already", flush=True)
    if options.list:
        print("\n".join(job.told() for job in left))
        return 0
    for number, (job, result) in enumerate(_done(left, options), start=1):
        records.add(job, result)
        print(f"[{options.suite}] {number} of {len(left)} done: {job.told()}", flush=True)
    found = [record for job in jobs if (record := records.of(job)) is not None]
    print(told(found))
    sheets = {"methods": write_method_sheet, "joining": write_method_sheet, "unlearn": unlearn.write_sheet}
    if options.suite in sheets:
        try:
            print(sheets[options.suite](found, options.output))
        except ValueError as error:
            print(f"No sheet was made. {error}", file=sys.stderr)
    return 0


def _done(jobs: Sequence[Job], options: argparse.Namespace) -> Iterator[tuple[Job, Mapping[str, Any]]]:
    if not jobs:
        return iter(())
    from .worker import Worker

    made_of = (options.checkpoint, options.judge, options.resolution, options.cfg)
    if options.ray:
        from .on_ray import done_on_ray

        worker = partial(Worker, options.output.resolve(), *made_of)
        return done_on_ray(options.ray, jobs, worker, options.cpus)
    return done_here(jobs, Worker(options.output, *made_of))


def told(records: Sequence[Record]) -> str:
    """What a suite's records say, in tables."""
    from .report import confusion, overlaps, set_prompts, summary

    streams = [record for record in records if "stages" in record]
    parts = [summary(streams)] if streams else []
    parts += [set_prompts(streams), confusion(streams), overlaps(_of_kind(records, OVERLAP))]
    parts += [entries.table(_of_kind(records, entries.ENTRIES))]
    parts += [unlearn.table(_of_kind(records, unlearn.UNLEARN))]
    return "\n\n".join(filter(None, parts))


def _of_kind(records: Sequence[Record], kind: str) -> list[Record]:
    return [record for record in records if record.get("kind") == kind]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    layout = argparse.RawDescriptionHelpFormatter
    told_suites = "\n".join(f"  {name:<12} {suite.__doc__}" for name, suite in SUITES.items())
    parser = argparse.ArgumentParser(
        prog="dev.py bench", description=f"{__doc__}\nSuites:\n{told_suites}", formatter_class=layout
    )
    parser.add_argument("suite", choices=tuple(SUITES))
    parser.add_argument("--methods", nargs="+", default=[], metavar="NAME", help="default: the suite's own")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings, in place of the bench's own"
    )
    parser.add_argument("--checkpoint", type=Path, help="of the base model; default: the small base, size s")
    parser.add_argument("--judge", type=Path, default=JUDGE, help="a CLIP folder; default: the small base's")
    parser.add_argument("--resolution", type=int, default=RESOLUTION, help="pixels (%(default)s)")
    parser.add_argument("--cfg", type=float, default=CFG, help="guidance when drawing (%(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="a small part, meant for 20 minutes on two CPU cores"
    )
    parser.add_argument("--list", action="store_true", help="tell what is left to do, and do nothing")
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="of a cluster's head; 'local' for this machine alone"
    )
    parser.add_argument("--cpus", type=int, default=2, help="of each job, with --ray (%(default)s)")
    parser.add_argument("--output", type=Path, default=ROOT / "demo_output" / "suites.jsonl")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
