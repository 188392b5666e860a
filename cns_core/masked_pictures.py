"""Pictures with the masks that lie beside them as files; `mask_files.py` says by which names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .mask_files import masks_of
from .picture_files import Picture, load_image, read_extensions, stays_inside

_APART = 0.01  # how much a mask's aspect may differ: of its longer side, and one pixel besides


def masks_beside(pictures: Sequence[Path]) -> dict[Path, Path]:
    """The mask file of each picture that has one, in the same folder. ValueError where there are several."""
    extensions = read_extensions()
    found: dict[Path, Path] = {}
    for folder in dict.fromkeys(picture.parent for picture in pictures):
        own = [picture for picture in pictures if picture.parent == folder]
        if folder.is_dir():
            files = [f for f in sorted(folder.iterdir()) if f.suffix.lower() in extensions and f.is_file()]
            found |= masks_of([f for f in files if not f.name.startswith(".") and stays_inside(f)], own)
    return found


def load_masked(path: Path, mask: Path | None, room: int | None = None) -> Picture:
    """As `load_image`; the mask file takes the place of an alpha channel, and is 1 where it is white.

    Raises:
        ValueError: one of the files cannot be read, or the mask is of another shape than the picture.
    """
    picture = load_image(path, room=room)
    if mask is None:
        return picture
    read = load_image(mask, room=room)
    _check_aspect(path.name, picture.size, mask.name, read.size)
    return picture._replace(alpha=_resized(_whiteness(read), picture.pixels.shape[:2]))


def _whiteness(mask: Picture) -> Tensor:
    """(H, W): how white each place is, what is transparent being black."""
    white = mask.pixels.mean(dim=2)
    return white if mask.alpha is None else (white - (1.0 - mask.alpha)).clamp(0.0, 1.0)


def _resized(mask: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(mask.shape) == tuple(size):
        return mask
    resized = torch.nn.functional.interpolate(
        mask[None, None], size=tuple(size), mode="bilinear", antialias=True
    )
    return resized[0, 0].clamp(0.0, 1.0)


def _check_aspect(picture: str, size: tuple[int, int], mask: str, mask_size: tuple[int, int]) -> None:
    """ValueError when the mask, brought to the picture's size, would be stretched."""
    (height, width), (mask_height, mask_width) = size, mask_size
    apart = abs(mask_height - height * mask_width / width)
    if height < width:
        apart = abs(mask_width - width * mask_height / height)
    if apart > 1 + _APART * max(mask_size):
        raise ValueError(
            f"{mask} is {mask_width} x {mask_height} pixels and {picture} is {width} x {height}, expected a "
            "mask of the same shape, whatever its size. Save it anew from the picture as it is now: it may "
            "have been cropped or turned since."
        )
