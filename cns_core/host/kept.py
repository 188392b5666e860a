"""What the pack keeps for itself below `user/cns`: finished trainings, checkpoints, class images, moments.

All of it may be lost, and none of it may stand in the way: what lies there is read as if a stranger had put
it there, and set aside where it is not sound; what cannot be written is told, and work goes on.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..atomic_write import LOCK_NAME, write_atomically
from ..settings import check, number
from .paths import work_folder

_ASIDE = ".damaged"
CHECKPOINT = ".checkpoint.safetensors"
_DAY = 86_400.0  # seconds


@dataclass(frozen=True)
class Limits:
    """How much of it stays."""

    keep_gb: float = number(
        2.0,
        0,
        10_000,
        "Finished trainings, class images and the like are kept in user/cns, so that nothing is made twice. "
        "When they take more than this many gigabytes, those that were not used for longest are removed.",
        step=0.5,
        digits=3,
        rare=True,
    )
    keep_days: float = number(
        90.0,
        0,
        100_000,
        "What was not used for so many days is removed from user/cns, trainings that were stopped among it.",
        step=1,
        digits=3,
        rare=True,
    )

    def __post_init__(self) -> None:
        check(self)


def set_aside(path: Path, why: object) -> str:
    """Rename what is not sound, so that it is made again; what to tell about it."""
    aside = path.with_name(path.name + _ASIDE)
    try:
        os.replace(path, aside)
        where = f"it was set aside as {aside.name} in {path.parent}"
    except OSError as error:
        where = f"it could not be set aside in {path.parent} ({error.strerror})"
    return _told(f"{path.name} could not be used; {where}, and the work was done again. Why: {why}")


def keep(path: Path, content: bytes) -> str:
    """Write it; where that is not possible, what to tell about it, else nothing."""
    try:
        write_atomically(path, content)
    except OSError as error:
        return _told(f"Not kept for the next time: {error.strerror}")
    return ""


def used(path: Path) -> None:
    """Make it one of those that are removed last."""
    try:
        os.utime(path)
    except OSError as error:  # a folder that cannot be written: then nothing is removed from it either
        logging.info(f"CNS: {path} was used, which could not be noted ({error}).")


def prune(limits: Limits, in_use: Iterable[Path] = ()) -> str:
    """Remove what was not used for long, and the oldest of what is too much; what to tell about it, or
    nothing.

    A training that was stopped goes only when it is too old: it is not finished.
    """
    root, spared = work_folder(""), {*in_use}
    found = sorted(_files_in(root, spared))
    too_much = sum(size for _, size, _ in found) - limits.keep_gb * 1e9
    oldest = time.time() - limits.keep_days * _DAY
    count, freed = 0, 0
    for last_use, size, path in found:
        unfinished = path.name.endswith(CHECKPOINT)
        if (last_use < oldest or (freed < too_much and not unfinished)) and remove(path):
            count, freed = count + 1, freed + size
    if not count:
        return ""
    return _told(
        f"{count} file{'s' * (count > 1)} of earlier work ({freed / 1e6:.1f} MB) that had not been used for "
        f"longest went from {root}, to keep within {limits.keep_gb:g} GB and {limits.keep_days:g} days "
        "(keep gigabytes and keep days of Continual Train)."
    )


def remove(path: Path) -> bool:
    """Whether it is gone now. What cannot be removed stays, and is noted in the log: nobody waits for it."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # a folder that cannot be written, or a file that another program holds open
        logging.info(f"CNS: {path} could not be removed ({error}).")
        return False
    return True


def _files_in(root: Path, spared: Collection[Path]) -> Iterator[tuple[float, int, Path]]:
    """When each was last used, its bytes, and where it is."""
    for path in root.rglob("*"):
        if path.name == LOCK_NAME or path in spared:
            continue
        try:
            about = path.lstat()
        except OSError:  # another ComfyUI on this folder was faster
            continue
        if stat.S_ISREG(about.st_mode):
            yield about.st_mtime, about.st_size, path


def _told(text: str) -> str:
    logging.warning(f"CNS: {text}")
    return text
