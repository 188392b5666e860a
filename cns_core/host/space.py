"""The concepts of a space, out of memories' files: forty wires are more than anybody draws."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from pathlib import Path

from ..memory import ConceptMemory
from ..memory_file import file_digest, load_memory
from ..space.members import Members, gathered
from . import paths


def space_of(memory: ConceptMemory | None, files: str) -> Members:
    """The concepts of a memory and of those that the lines name. ValueError where they make no space."""
    named = [load_memory(path) for path in _files(files)]
    memories = named if memory is None else [memory, *named]
    if not memories:
        raise ValueError(
            "No memory is connected and no file is named. Connect a memory of many concepts, or name files "
            "in models/concept_memory/, one a line: faces/* stands for all of a folder."
        )
    return gathered(memories)


def digest_of(files: str) -> str:
    """Of all that the lines name, so that a file that has changed or come is seen; nothing for what is not
    there yet.
    """
    try:
        return " ".join(file_digest(path) for path in _files(files))
    except ValueError:
        return ""


def _files(lines: str) -> Iterator[Path]:
    """Each once, in the order of the lines, those of one line by name. ValueError for a line that names
    none.
    """
    known = {name.replace("\\", "/"): name for name in sorted(paths.memory_files())}
    seen: set[str] = set()
    for line in filter(None, map(str.strip, lines.split("\n"))):
        pattern = line.replace("\\", "/").removesuffix(".safetensors") + ".safetensors"
        found = [name for name in known if fnmatch.fnmatchcase(name, pattern)]
        if not found:
            shown = ", ".join([*known][:20]) or "none yet"
            raise ValueError(
                f"No file in models/{paths.MEMORY_FOLDER}/ is named {line!r}. Files there: {shown}."
            )
        for name in found:
            if name not in seen:
                seen.add(name)
                yield paths.memory_file(known[name])
