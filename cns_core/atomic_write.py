"""A file is either wholly there or not at all: write beside it, flush to disk, rename over.

One writer at a time in a folder, whatever program it belongs to.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

# Read where only one thread runs: the umask cannot be read without being set for a moment.
_UMASK = os.umask(0)
os.umask(_UMASK)
LOCK_NAME = ".cns.lock"
_PATIENCE = 60.0  # seconds; the largest file takes a few
# What a writer that was killed has left; the second kind is that of earlier versions.
_LEFTOVER = re.compile(r"\..+\.cns-part|\..+\.(safetensors|json)\.[a-z0-9_]{8}")
# One lock object for a folder, so that whoever holds it may take it again.
_LOCKS: dict[Path, FileLock] = {}
_GUARD = threading.Lock()


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keep every other process and thread that writes by this module out of a folder, which is made where it
    is missing. The operating system frees the lock of a process that dies. What writers that were killed
    have left there is removed.

    OSError when the folder cannot be written, or another writer does not come to an end.
    """
    folder = Path(os.path.realpath(folder))
    folder.mkdir(parents=True, exist_ok=True)
    with _GUARD:
        lock = _LOCKS.setdefault(folder, FileLock(folder / LOCK_NAME))
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout as error:
        raise OSError(
            error.errno,
            f"Another program has been writing in {folder} for {_PATIENCE:.0f} s. Wait until it is done, or "
            "end it, then queue again.",
        ) from error
    except NotImplementedError:
        logging.warning(
            f"CNS: the file system of {folder} knows no locks; let one program at a time write there."
        )
        yield
        return
    try:
        _remove_leftovers(folder)
        yield
    finally:
        lock.release()


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`. On any failure (disk full, no permission) the old file stays and SaveError,
    an OSError, says what to do.
    """
    with saving(path), only_writer(path.parent):
        _replace(path, content)


class SaveError(OSError):
    """A file could not be written; its text says what to do."""


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turn an OSError within into a SaveError about this file."""
    try:
        yield
    except SaveError:
        raise
    except OSError as error:
        raise SaveError(
            error.errno,
            f"Could not save {path.name} in {path.parent}: {error.strerror}. Whatever stood there before is "
            "untouched. Free some space or choose another folder, then queue again.",
        ) from error


def _replace(path: Path, content: bytes) -> None:
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=".cns-part", delete=False
        ) as file:
            temporary = Path(file.name)
            _give_ordinary_mode(temporary, path)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if temporary is not None and temporary.exists():
            temporary.unlink()


def _remove_leftovers(folder: Path) -> None:
    for entry in folder.iterdir():
        if _LEFTOVER.fullmatch(entry.name) and entry.is_file() and not entry.is_symlink():
            entry.unlink(missing_ok=True)


def _give_ordinary_mode(temporary: Path, path: Path) -> None:
    try:
        os.chmod(temporary, _ordinary_mode(path))
    except OSError as error:  # some mounts know no modes, and the file itself can be written there
        logging.info(f"{path} keeps the mode of a temporary file ({error}).")


def _ordinary_mode(path: Path) -> int:
    """That of the file that is replaced, else what `open` would give; temporary files shut others out."""
    return path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_UMASK
