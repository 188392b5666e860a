"""The loop that every tool here trains in: a time budget, a log, a checkpoint that survives being killed.

A stretch ends when its minutes or steps are used up, at Ctrl-C or when the process is told to end; in each
case the checkpoint is written first, and the same command goes on from there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

WARM_UP_STEPS = 200
_LOWEST_RATE = 0.01


class Trainer(Protocol):
    """What one tool brings along."""

    name: str

    def begin(self, index: int) -> None:
        """A stretch starts with step `index`: draw other pictures than the stretches before it."""

    def step(self, index: int, rate: float) -> dict[str, Tensor]:
        """Make step `index` at `rate` x the full learning rate; returns scalars to log, on the device."""

    def state(self) -> dict[str, Any]:
        """Tensors, numbers and containers of them: what the next stretch needs."""

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""

    def report(self, folder: Path, index: int) -> dict[str, float]:
        """Leave samples in `folder`; returns figures to log."""


@dataclass(frozen=True)
class Stretch:
    """How long one call trains, and what it leaves behind."""

    folder: Path
    minutes: float
    steps: int | None = None  # of this call; None: as many as the minutes allow
    cooldown: float = 0.0  # the share of this call over which the learning rate falls to almost nothing
    log_seconds: float = 30.0
    save_minutes: float = 4.0
    report_minutes: float = 10.0


def stretch_seed(seed: int, index: int) -> int:
    """The seed of a stretch that starts with step `index`."""
    return seed + 7919 * index


def checkpoint_path(folder: Path, name: str) -> Path:
    """Where the trainer `name` keeps its state."""
    return folder / f"{name}.ckpt"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Whole or not at all: the last good one is replaced only by a complete one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".partial")
    torch.save(state, unfinished)
    os.replace(unfinished, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, on the CPU."""
    return torch.load(path, map_location="cpu", weights_only=True)


def train(trainer: Trainer, stretch: Stretch) -> int:
    """Train for one stretch and return the number of steps made so far, in all stretches together."""
    path = checkpoint_path(stretch.folder, trainer.name)
    index, trained_seconds = 0, 0.0
    if path.is_file():
        saved = load_checkpoint(path)
        trainer.load(saved["trainer"])
        index, trained_seconds = saved["index"], saved["seconds"]
        print(f"[{trainer.name}] going on from step {index}", flush=True)
    first = index
    trainer.begin(index)
    started = last_log = last_save = last_report = time.monotonic()
    sums: dict[str, tuple[Tensor, int]] = {}
    logged_at = index

    def save() -> None:
        seconds = trained_seconds + time.monotonic() - started
        save_checkpoint(path, {"trainer": trainer.state(), "index": index, "seconds": seconds})

    with _stop_requests() as stop:
        while not stop and _share_done(stretch, index - first, started) < 1.0:
            done = _share_done(stretch, index - first, started)
            for name, value in trainer.step(index, _rate(index, done, stretch.cooldown)).items():
                total, count = sums.get(name, (torch.zeros_like(value), 0))
                sums[name] = (total + value.detach(), count + 1)
            index += 1
            now = time.monotonic()
            if now - last_log >= stretch.log_seconds or index == first + 1:
                values = {name: float(total) / count for name, (total, count) in sums.items()}
                if any(value != value for value in values.values()):
                    kept = (
                        f"The last good state is in {path}; go on from it" if path.is_file() else "Begin anew"
                    )
                    raise FloatingPointError(
                        f"{trainer.name}: not a number at step {index}: {values}. "
                        f"{kept} with a lower learning rate."
                    )
                _log(
                    stretch.folder,
                    trainer.name,
                    {"step": index, **values, "steps_per_second": (index - logged_at) / (now - last_log)},
                )
                sums, logged_at, last_log = {}, index, now
            if now - last_save >= 60 * stretch.save_minutes:
                save()
                last_save = time.monotonic()
            if now - last_report >= 60 * stretch.report_minutes:
                _log(stretch.folder, trainer.name, {"step": index, **trainer.report(stretch.folder, index)})
                last_report = time.monotonic()
        save()
    _log(stretch.folder, trainer.name, {"step": index, **trainer.report(stretch.folder, index)})
    seconds = time.monotonic() - started
    print(f"[{trainer.name}] {index - first} steps in {seconds:.0f} s, {index} in all: {path}", flush=True)
    return index


def default_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _share_done(stretch: Stretch, steps: int, started: float) -> float:
    by_time = (time.monotonic() - started) / (60 * stretch.minutes)
    return max(by_time, steps / stretch.steps if stretch.steps else 0.0)


def _rate(index: int, done: float, cooldown: float) -> float:
    warm_up = min(1.0, (index + 1) / WARM_UP_STEPS)
    if cooldown <= 0 or done <= 1 - cooldown:
        return warm_up
    return warm_up * max(_LOWEST_RATE, (1 - done) / cooldown)


def _log(folder: Path, name: str, values: dict[str, float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": round(time.time()), **values}) + "\n")
    shown = (f"{key} {value if isinstance(value, int) else f'{value:.4g}'}" for key, value in values.items())
    print(f"[{name}] " + ", ".join(shown), flush=True)


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of the first one; a second one kills as usual."""
    seen: list[int] = []
    before = {}

    def note(number: int, _frame: Any) -> None:
        seen.append(number)
        signal.signal(number, before[number])
        print("stopping after this step", file=sys.stderr, flush=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, note)
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
