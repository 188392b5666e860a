"""A file is either wholly there or not at all: write beside it, flush to disk, rename over."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# Read where only one thread runs: the umask cannot be read without being set for a moment.
_UMASK = os.umask(0)
os.umask(_UMASK)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`. On any failure (disk full, no permission) the old file stays and OSError
    says what to do.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            os.chmod(temporary, _ordinary_mode(path))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            error.errno,
            f"Could not save {path.name} ({len(content) / 1e6:.1f} MB) in {path.parent}: {error.strerror}. "
            "Whatever stood there before is untouched. Free some space or choose another folder, then queue "
            "again.",
        ) from error
    finally:
        if temporary is not None and temporary.exists():
            temporary.unlink()


def _ordinary_mode(path: Path) -> int:
    """That of the file that is replaced, else what `open` would give; temporary files shut others out."""
    return path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_UMASK
