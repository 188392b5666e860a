"""What goes wrong around the pack, on purpose: changed files, killed writers, full disks, many jobs.

    python3 dev.py bench faults                     all of it, about an hour
    python3 dev.py bench faults --only saving       one part
    python3 dev.py bench faults --share 0.01        a hundredth of the tries

Each figure stands beside its bar; the exit code is 1 when one is missed. The tests run a short part of it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from .files import Fuzzed, fuzzed_checkpoints, fuzzed_memories, slowest_large_file
from .saving import killed_while_saving, saved_at_once

_ROOT = Path(__file__).parents[2]
_KEEP_GB = 0.001  # of the many jobs: less than their results would take

# What was found, in words; its bar; whether it is met.
Row = tuple[str, str, bool]


def main() -> int:
    """Run the command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="dev.py bench faults", description=__doc__, formatter_class=layout)
    parser.add_argument("--only", choices=_PARTS, nargs="+", default=list(_PARTS), help="parts to run")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice; default: 0")
    parser.add_argument("--share", type=float, default=1.0, help="of the tries; default: all")
    options = parser.parse_args()
    rows: list[Row] = []
    for part in options.only:
        for row in _PARTS[part](options.seed, options.share):
            rows.append(row)
            print("| " + " | ".join((row[0], row[1], "met" if row[2] else "MISSED")) + " |", flush=True)
    return 0 if all(met for _, _, met in rows) else 1


def _files(seed: int, share: float) -> Iterator[Row]:
    for what, found in (
        ("memory files", fuzzed_memories(_some(25_000, share), seed)),
        ("checkpoints", fuzzed_checkpoints(_some(4_000, share), seed)),
    ):
        yield from _of_files(what, found)
    seconds, size = slowest_large_file(seed)
    yield f"slowest of files of {size / 1e6:.0f} MB: {seconds:.2f} s", "at most 1 s", seconds <= 1


def _of_files(what: str, found: Fuzzed) -> Iterator[Row]:
    tried = f"{found.tried:,} changed {what}, {found.loaded:,} of them sound"
    yield f"{tried}: {len(found.wrong)} wrong errors", "0", not found.wrong
    yield f"the same: {len(found.inconsistent)} inconsistent", "0", not found.inconsistent
    most = 4 * found.largest + 32 * 2**20
    yield (
        f"the same: {found.grown / 1e6:.1f} MB of memory",
        f"at most {most / 1e6:.1f} MB",
        found.grown <= most,
    )
    for line in (*found.wrong, *found.inconsistent)[:10]:
        print(f"  {line}")


def _saving(seed: int, share: float) -> Iterator[Row]:
    killed = killed_while_saving(_some(300, share), seed)
    tried = f"{killed.tried} killed while saving"
    yield f"{tried}: {len(killed.half_written)} half-written", "0", not killed.half_written
    yield f"{tried}: {len(killed.leftovers)} files left after the next save", "0", not killed.leftovers
    at_once = saved_at_once(_some(60, share))
    yield f"{at_once.tried} saves of two at once: {len(at_once.lost)} lost", "0", not at_once.lost


def _disk(seed: int, share: float) -> Iterator[Row]:
    command = [sys.executable, "-m", "pytest", "-q", "tests/host/test_kept.py"]
    code = subprocess.call(command, cwd=_ROOT)
    yield "full and read-only disk, damaged and foreign files (tests/host/test_kept.py)", "pass", code == 0


def _jobs(seed: int, share: float) -> Iterator[Row]:
    from .jobs import queued_jobs

    count = max(40, _some(200, share))
    found = queued_jobs(count, _KEEP_GB)
    growth = found.growth() / 1e6
    yield f"{count} queued jobs: {growth:.3f} MB of memory a job", "at most 0.2 MB", growth <= 0.2
    most, bound = max(found.kept) / 1e6, 1e3 * _KEEP_GB + 10  # and what is never removed for its size
    yield f"{count} queued jobs: at most {most:.1f} MB on disk", f"at most {bound:.1f} MB", most <= bound


_PARTS: dict[str, Callable[[int, float], Iterator[Row]]] = {
    "files": _files,
    "saving": _saving,
    "disk": _disk,
    "jobs": _jobs,
}


def _some(count: int, share: float) -> int:
    return max(1, round(count * share))


if __name__ == "__main__":
    raise SystemExit(main())
