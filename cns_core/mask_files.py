"""Which files of a folder are masks of pictures beside them, white where the picture shows the concept:
`dog-mask.png`, `dog.mask.png`, or as OneTrainer writes it `dog-masklabel.png`, for `dog.jpg`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_ALWAYS = ("-masklabel", ".mask")  # no picture is named so
_BESIDE = ("-mask",)  # "wooden-mask.png" alone is a picture of a mask


def without_masks(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The files that are no masks, and masks without a picture, both in the order given."""
    kept = [file for file in files if _stem(file, _ALWAYS) is None]
    stems = {file.stem for file in kept}
    pictures = [file for file in kept if _stem(file, _BESIDE) not in stems]
    stems = {file.stem for file in pictures}
    alone = [file for file in files if file not in kept and _stem(file, _ALWAYS) not in stems]
    return pictures, alone


def masks_of(files: Sequence[Path], pictures: Sequence[Path]) -> dict[Path, Path]:
    """The mask of each picture that has one; files: those of the folder, pictures: some of them.

    Raises:
        ValueError: a picture has several.
    """
    masks: dict[str, list[Path]] = {}
    chosen = set(pictures)
    for file in files:
        stem = _stem(file, (*_ALWAYS, *_BESIDE))
        if stem is not None and file not in chosen:
            masks.setdefault(stem, []).append(file)
    found = {picture: masks[picture.stem] for picture in pictures if picture.stem in masks}
    for picture, several in found.items():
        if len(several) > 1:
            raise ValueError(
                f"{picture} has {len(several)} masks, {', '.join(mask.name for mask in several)}, expected "
                "one at most. Remove the others."
            )
    return {picture: mask for picture, (mask,) in found.items()}


def _stem(file: Path, endings: Sequence[str]) -> str | None:
    """The name, without its ending, of the picture that a file of this name is a mask of."""
    for ending in endings:
        if file.stem.lower().endswith(ending) and len(file.stem) > len(ending):
            return file.stem[: -len(ending)]
    return None
