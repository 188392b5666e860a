"""The memories in `models/concept_memory/` as a library: what is in each, renaming, and a trash to take them
back from.

Names are relative to the folder, as the loading node shows them. What lies in the trash has another ending,
so that no loader lists it.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..atomic_write import only_writer, saving
from ..curves import thinned
from ..identity import ModelIdentity
from ..memory import LearnedConcept
from ..memory_file import load_memory
from . import last_model, paths

TRASH = ".trash"
_ENDING, _TRASHED = ".safetensors", ".deleted"
_POINTS = 300  # of a loss curve
_MOST_KEPT = 2_000  # files whose content is remembered


@dataclass(frozen=True, eq=False)
class Shelf:
    """What one file holds; fault: why it cannot be read, then the rest is empty."""

    fault: str | None = None
    base: ModelIdentity | None = None
    concepts: tuple[dict[str, Any], ...] = ()
    thumbnails: tuple[bytes, ...] = ()


_KNOWN: dict[Path, tuple[tuple[int, int], Shelf]] = {}
_LOCK = threading.Lock()


def listed() -> list[dict[str, Any]]:
    """Every memory file, as JSON; a damaged one with the reason."""
    return [_described(name) for name in paths.memory_files()]


def concept(file: str, number: int) -> dict[str, Any]:
    """Settings and loss curves of one concept of a file, counted from 0. ValueError where there is none."""
    concepts = load_memory(_existing(file)).concepts
    _check_number(file, number, len(concepts))
    losses = {name: values.tolist() for name, values in concepts[number].losses.items()}
    return {"settings": concepts[number].settings, "losses": thinned(losses, _POINTS).as_json()}


def thumbnail(file: str, number: int) -> bytes:
    """A JPEG, or nothing where the concept has none. ValueError where there is no such concept."""
    shelf = _shelf(_existing(file))
    _check_number(file, number, len(shelf.thumbnails))
    return shelf.thumbnails[number]


def rename(file: str, name: str) -> str:
    """Give a file another name, in the same concept_memory folder; sub-folders are made. The new name.
    ValueError for a name that no memory may be saved under, or that is taken.
    """
    path = _existing(file)
    wanted = paths.new_memory_file(name)
    root = paths.memory_folder_of(path)
    new = root / wanted.relative_to(os.path.realpath(paths.memory_root()))
    _move(path, new)
    return new.relative_to(root).as_posix()


def trash(file: str) -> str:
    """Take a file out of the folder; the name that `restore` takes."""
    path = _existing(file)
    root = paths.memory_folder_of(path)
    stamp = datetime.now().strftime("%Y-%m-%d %H.%M.%S.%f")
    new = (root / TRASH / stamp / path.relative_to(root)).with_suffix(_TRASHED)
    _move(path, new)
    return new.relative_to(root / TRASH).as_posix()


def trashed() -> list[dict[str, str]]:
    """What lies in the trash, the newest first: its name there, the file that it was, and when it went."""
    found = []
    for root in paths.memory_folders():
        for path in (root / TRASH).glob(f"*/**/*{_TRASHED}"):
            stamp, *parts = path.relative_to(root / TRASH).with_suffix(_ENDING).parts
            name = path.relative_to(root / TRASH).as_posix()
            found.append({"name": name, "file": "/".join(parts), "when": stamp[:19].replace(".", ":")})
    return sorted(found, key=lambda entry: entry["name"], reverse=True)


def restore(name: str) -> str:
    """Put a file back where it was; its name there. ValueError where that name is taken, or nothing of this
    name is in the trash.
    """
    for root in paths.memory_folders():
        if not (root / TRASH).is_dir():
            continue
        path = paths.inside(root / TRASH, name, "the trash")
        inside = path.relative_to(os.path.realpath(root / TRASH)).parts
        if path.suffix == _TRASHED and len(inside) > 1 and path.is_file():
            new = root.joinpath(*inside[1:]).with_suffix(_ENDING)
            _move(path, new)
            _remove_empty(path.parent, root / TRASH)
            return new.relative_to(root).as_posix()
    raise ValueError(f"There is nothing named {name!r} in the trash; it was put back already, or removed.")


def _existing(file: str) -> Path:
    path = paths.memory_file(file)
    if path.suffix.lower() != _ENDING:
        raise ValueError(f"{file!r} is no memory file: its name does not end in {_ENDING}.")
    return path


def _check_number(file: str, number: int, count: int) -> None:
    if not 0 <= number < count:
        raise ValueError(f"{file} has no concept number {number}; it has {count}, counted from 0.")


def _move(path: Path, new: Path) -> None:
    """Rename where nothing stands yet. ValueError where something does; OSError, with what to do."""
    with saving(new), ExitStack() as stack:
        for folder in sorted({path.parent, new.parent}):  # in one order, or two would wait for each other
            stack.enter_context(only_writer(folder))
        if new.exists() and not new.samefile(path):  # the same in other case, where case is nothing
            raise ValueError(f"There is a file {new.name} already. Choose another name, or delete that one.")
        os.rename(path, new)


def _remove_empty(folder: Path, root: Path) -> None:
    """A folder of the trash and those above it, where only the lock is left in them."""
    while folder != Path(os.path.realpath(root)) and not any(e.suffix != ".lock" for e in folder.iterdir()):
        for lock in folder.iterdir():
            lock.unlink()
        folder.rmdir()
        folder = folder.parent


def _described(name: str) -> dict[str, Any]:
    try:
        path = _existing(name)
        about, shelf = path.stat(), _shelf(path)
    except (ValueError, OSError) as error:  # an odd name; or it went away a moment ago
        return _entry(name, Shelf(fault=str(error)))
    return {
        **_entry(name, shelf),
        "bytes": about.st_size,
        "modified": datetime.fromtimestamp(about.st_mtime, timezone.utc).isoformat(timespec="seconds"),
        "version": str(about.st_mtime_ns),
    }


def _entry(name: str, shelf: Shelf) -> dict[str, Any]:
    base = shelf.base
    return {
        "file": name,
        "bytes": 0,
        "modified": "",
        "version": "",
        "fault": shelf.fault,
        "base": None if base is None else str(base),
        "other_base": None if base is None else last_model.is_another(base),
        "concepts": list(shelf.concepts),
    }


def _shelf(path: Path) -> Shelf:
    """Read once, for as long as the file stays as it is."""
    about = path.stat()
    state = (about.st_mtime_ns, about.st_size)
    with _LOCK:
        known = _KNOWN.get(path)
    if known is not None and known[0] == state:
        return known[1]
    shelf = _read(path)
    with _LOCK:
        if len(_KNOWN) >= _MOST_KEPT:
            _KNOWN.clear()
        _KNOWN[path] = (state, shelf)
    return shelf


def _read(path: Path) -> Shelf:
    try:
        memory = load_memory(path)
    except ValueError as error:
        return Shelf(fault=str(error))
    concepts = tuple(_told(learned) for learned in memory.concepts)
    return Shelf(None, memory.base, concepts, tuple(learned.thumbnail for learned in memory.concepts))


def _told(learned: LearnedConcept) -> dict[str, Any]:
    return {
        "name": learned.name,
        "token": learned.token,
        "class_word": learned.class_word,
        "kind": learned.kind,
        "method": learned.method,
        "learned_at": learned.learned_at,
        "steps": max((len(values) for values in learned.losses.values()), default=0),
        "thumbnail": bool(learned.thumbnail),
    }
