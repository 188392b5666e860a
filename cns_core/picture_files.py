"""Picture files of any origin: which there are in a folder, and their pixels, at no more cost than is needed.

Pixels are (height, width, 3) float32 in [0, 1]; alpha is (height, width) float32.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, PngImagePlugin
from torch import Tensor

from .colour import in_srgb
from .mask_files import without_masks

# Named one by one: of what Pillow opens besides, some is handed to other programs, which run what it says.
# The last two are there where the user's plugins have added them.
FORMATS = (
    *("PNG", "JPEG", "MPO", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM", "TGA", "PCX"),
    *("ICO", "QOI", "SGI", "PSD", "HEIF", "JXL"),
)
# Beside pictures as a matter of course: captions, settings of other trainers, caches.
_COMPANIONS = (".txt", ".caption", ".json", ".toml", ".yaml", ".npz", ".safetensors", ".db", ".ini")
_MOST_SIDE_INFORMATION = 256 * 2**20  # bytes of text and colour profiles in a PNG; workflows are in it too
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # of EXIF: by a quarter, whatever else
MIN_SIDE = 16  # pixels; less than two latent cells hold no picture
MAX_PIXELS = 89_478_485  # Pillow's own default; kept here because other packs switch Pillow's off
_LONGEST = 4  # times the shorter side; of what is longer only the middle is ever used


class Picture(NamedTuple):
    """What is needed of one file.

    alpha: None where it is opaque everywhere; size: the file's own height and width, upright.
    """

    pixels: Tensor
    alpha: Tensor | None
    size: tuple[int, int]


def read_extensions() -> frozenset[str]:
    """The endings of files that are read: of FORMATS, those that this Pillow opens, with what plugins such as
    `pillow-heif` have added to it.
    """
    formats = _formats()
    return frozenset(e for e, form in Image.registered_extensions().items() if form in formats)


def list_images(folder: Path) -> tuple[list[Path], list[str]]:
    """The picture files directly in a folder, by name, and the names of files that are left out, for nothing
    here reads them, they are links that lead elsewhere, or masks without a picture. Hidden files and what
    lies beside pictures as a matter of course, masks of them too, are in neither. ValueError if there are no
    pictures.
    """
    if not folder.is_dir():
        seen = "a file" if folder.exists() else "nothing"
        raise ValueError(f"{folder}: expected a folder with pictures, found {seen} there. Check the path.")
    entries = sorted(
        (entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=lambda e: e.name
    )
    extensions, files = read_extensions(), [entry for entry in entries if entry.is_file()]
    readable = [e for e in files if e.suffix.lower() in extensions and stays_inside(e)]
    found, alone = without_masks(readable)
    if not found:
        others = [entry.name + ("/" if entry.is_dir() else "") for entry in entries]
        raise ValueError(
            f"{folder} has no picture. PNG, JPEG, WebP and whatever else Pillow reads is taken, sub-folders "
            "and links to files elsewhere are not; found "
            f"{some_of(others) if others else 'an empty folder'}. Put the pictures directly into the folder."
        )
    left_out = [
        f.name for f in files if f in alone or (f not in readable and f.suffix.lower() not in _COMPANIONS)
    ]
    return found, left_out


def stays_inside(path: Path) -> bool:
    """Whether a file lies in its folder, or is a link to one that does. The folder itself may be a link of
    the machine's owner; links to single files come with unpacked archives too, and could name anything.
    """
    real = os.path.realpath(path)
    return os.path.dirname(real) == os.path.realpath(path.parent)


def told_left_out(names: Sequence[str]) -> list[str]:
    """A note about files of a folder that nothing here reads, or none."""
    if not names:
        return []
    heif = any(name.lower().endswith((".heic", ".heif", ".hif")) for name in names)
    advice = " HEIC is read once the package pillow-heif registers it, or save them as JPEG." if heif else ""
    why = "for nothing here reads them, or they are links to files elsewhere, or masks without a picture"
    return [f"Left out, {why}: {some_of(names, 12)}.{advice}"]


def load_image(path: Path, most_pixels: int = MAX_PIXELS, room: int | None = None) -> Picture:
    """One file as pixels, upright, on white and in sRGB, and its alpha.

    Of a file with several frames the first is read, of a strip its middle.

    Args:
        most_pixels: more are refused.
        room: the longest side in pixels that it will be scaled down to; one that is several times as large is
            halved, or divided by more, while it is still in 8 bits. None: it stays as it is.

    Raises:
        ValueError: names the file when it is missing, damaged or truncated, has too many pixels, or is below
            16 pixels on a side.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file. Check the path.")
    try:
        with pillow_strict(), Image.open(_whole(path, most_pixels), formats=_formats()) as opened:
            # Known from the header, before anything is unpacked.
            if opened.width * opened.height > most_pixels:
                raise Image.DecompressionBombError(f"{opened.width} x {opened.height}")
            turned = opened.getexif().get(_ORIENTATION, 1) in _TURNED
            size = opened.size if turned else opened.size[::-1]
            small = _no_larger(opened, room)
            data = _as_array(in_srgb(ImageOps.exif_transpose(small), str(path)))
    except _NotUsableError as error:
        raise ValueError(f"{path} {error}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{path} is too large ({error}), expected at most {most_pixels:,} pixels. Scale it down first."
        ) from error
    except Exception as error:  # Pillow's decoders raise anything from SyntaxError to struct.error
        raise ValueError(
            f"{path} cannot be read as a picture ({type(error).__name__}: {error}). It may be damaged or cut "
            "short: open it in an editor and save it as an 8-bit RGB PNG, or take it out of the folder."
        ) from error
    check_size(str(path), *data.shape[:2])
    if data.ndim == 2:
        return Picture(torch.from_numpy(data)[:, :, None].repeat(1, 1, 3), None, size)
    pixels = torch.from_numpy(data)
    if pixels.shape[2] == 4:
        return Picture(*on_white(pixels), size)
    return Picture(pixels, None, size)


def on_white(rgba: Tensor) -> tuple[Tensor, Tensor | None]:
    """Pixels (H, W, 3) of (H, W, 4), and alpha unless it is 1 everywhere."""
    alpha = rgba[..., 3]
    if bool((alpha == 1.0).all()):
        return rgba[..., :3].contiguous(), None
    return (rgba[..., :3] * alpha[..., None] + (1.0 - alpha[..., None])).clamp(0.0, 1.0), alpha.contiguous()


def check_size(source: str, height: int, width: int) -> None:
    """ValueError for what is too small to hold a picture."""
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"{source} is {width} x {height} pixels, expected at least {MIN_SIDE} on each side. Use a larger "
            "picture."
        )


def some_of(names: Sequence[str], shown: int = 3) -> str:
    """The first names of a list, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def _formats() -> list[str]:
    Image.init()
    return [form for form in FORMATS if form in Image.OPEN]


def _no_larger(picture: Image.Image, room: int | None) -> Image.Image:
    """The same, or its middle where it is a strip, and divided in size while twice the room stays."""
    long, short = max(picture.size), min(picture.size)
    if room is not None and long > 2 * room:
        times = short // (2 * room)
        if times >= 2:
            picture.draft(None, (picture.width // times, picture.height // times))  # JPEG: not even unpacked
    if long > _LONGEST * max(short, MIN_SIDE):
        picture = _middle(picture)
    times = 1 if room is None else min(picture.size) // (2 * room)
    if times < 2 or picture.mode.startswith(("I", "F")):  # what has more than 8 bits is seldom large
        return picture
    if picture.mode in ("P", "PA", "1"):
        picture = picture.convert("RGBA" if "transparency" in picture.info or picture.mode == "PA" else "RGB")
    reduced = picture.reduce(times)
    reduced.info = picture.info
    return reduced


def _middle(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    long, kept = max(width, height), _LONGEST * min(width, height)
    start = (long - kept) // 2
    box = (start, 0, start + kept, height) if width > height else (0, start, width, start + kept)
    cropped = picture.crop(box)
    cropped.info = picture.info
    return cropped


def _as_array(picture: Image.Image) -> np.ndarray:
    """(H, W), (H, W, 3) or, with transparency, (H, W, 4), float32 in [0, 1]."""
    if picture.mode == "F" or picture.mode.startswith("I"):
        # Pillow's own convert("RGB") would clip these to 8 bits instead of scaling them.
        seen = np.asarray(picture)
        data = seen.astype(np.float32) if picture.mode == "F" else seen.astype(np.float32) / 65535.0
        if not (data.min() >= 0.0 and data.max() <= 1.0):
            raise _NotUsableError(
                f"holds numbers from {seen.min():g} to {seen.max():g} as brightness (mode "
                f"{picture.mode}), expected 0 to 1 or 16 bits. Save it as an 8-bit RGB PNG."
            )
        return data
    transparent = picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
    return np.asarray(picture.convert("RGBA" if transparent else "RGB")).astype(np.float32) / 255.0


class _NotUsableError(ValueError):
    """A sound file that holds no picture to train on."""


@contextmanager
def pillow_strict() -> Iterator[None]:
    # Other packs set the first flag for the whole process; a picture cut short would then load as half grey.
    before = ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = _MOST_SIDE_INFORMATION
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = (
            before
        )


def _whole(path: Path, most_pixels: int) -> Path | BytesIO:
    """The file, or a JPEG's bytes with the end marker that it alone lacks: cameras and downloads that stop a
    moment too early leave such files, and every viewer shows them whole.
    """
    with path.open("rb") as file:
        if file.read(2) != _JPEG_START:
            return path
        data = _JPEG_START + file.read()
    if _JPEG_END in data[-64:]:
        return path
    with Image.open(path, formats=_formats()) as opened:
        if opened.width * opened.height > most_pixels:
            return path  # refused by whoever opens it, before it is unpacked
    # Decoded with other bytes after what is there, a picture that was cut short has other pixels.
    ended = [data + more + _JPEG_END for more in (b"", b"\x55" * 4096)]
    first, second = (np.asarray(Image.open(BytesIO(one), formats=["JPEG"]).convert("RGB")) for one in ended)
    return BytesIO(ended[0]) if np.array_equal(first, second) else path
