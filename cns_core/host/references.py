"""What learned concepts should look like: the pictures of a CONCEPT, or of a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..concept import Concept
from ..memory import ConceptMemory
from ..picture_files import list_images, load_image
from ..values import shown
from . import paths

_ROOM = 1024  # pixels of the longest side; CLIP sees a few hundred


@dataclass(frozen=True, eq=False)
class References:
    """Pictures of the concept with this token: `(H, W, 3)` each, or files that are read one by one."""

    token: str
    source: tuple[Tensor, ...] | tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.source)

    def pictures(self) -> Iterator[Tensor]:
        """`(H, W, 3)` float32 in [0, 1]. ValueError for a file that cannot be read."""
        for one in self.source:
            yield load_image(one, room=_ROOM).pixels if isinstance(one, Path) else one


def references(memory: ConceptMemory, concepts: Sequence[Concept], folders: str) -> list[References]:
    """Of a memory's concepts; not every one has to have some.

    folders: lines of `<token or name>: folder`, the folder below ComfyUI's input directory.

    Raises:
        ValueError: for a concept that is not in the memory, one that comes twice, or a folder without
            pictures.
    """
    known = memory.token_vectors()
    found = []
    for given in concepts:
        if given.token not in known:
            raise ValueError(
                f"The concept {given.name!r} ({given.token}) is not in this memory, which holds: "
                f"{', '.join(known)}. Unplug it, or connect the memory that has "
                "learned it."
            )
        found.append(References(given.token, tuple(image.pixels for image in given.images)))
    for name, folder in folder_lines(folders):
        if not (token := memory.concept(name).token):
            raise ValueError(f"{name!r} was erased, and has no pictures to compare with. Remove its line.")
        found.append(References(token, tuple(list_images(folder)[0])))
    tokens = [one.token for one in found]
    if twice := sorted({token for token in tokens if tokens.count(token) > 1}):
        raise ValueError(
            f"References of {', '.join(twice)} are given twice, expected once. Leave one of them out: a "
            "connected concept, or a line of reference folders."
        )
    return found


def folder_lines(text: str) -> list[tuple[str, Path]]:
    """Name or token, and folder, of each line. ValueError for one that is written otherwise, or names no
    folder of pictures below ComfyUI's input directory.
    """
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, colon, folder = (part.strip() for part in line.rpartition(":"))
        if not colon or not name or not folder:
            raise ValueError(
                f"reference folders has the line {shown(line)}, expected a concept's name or token, a colon "
                "and a folder below ComfyUI's input directory: '<my-dog>: photos/dog'."
            )
        path = paths.image_folder(folder)
        list_images(path)
        found.append((name, path))
    return found


def fingerprint(text: str) -> str:
    """Changes exactly when a file of the folders does."""
    files = [
        sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in folder.iterdir() if f.is_file())
        for _, folder in folder_lines(text)
    ]
    return hashlib.sha256(repr(files).encode()).hexdigest()
