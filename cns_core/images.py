"""The one place that turns picture files and IMAGE tensors into training images.

Pixels are (height, width, 3) float32 in [0, 1]; a mask is (height, width) float32, 1 where the concept is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, PngImagePlugin
from torch import Tensor

from .captions import CaptionRule
from .colour import in_srgb
from .concept import BUCKET_STEP, TrainingImage

# Of what Pillow opens: drawings that other programs would have to render, and files of data.
_NO_PICTURES = frozenset(("EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "IPTC", "FITS", "FLI", "ICNS", "GBR"))
# Beside pictures as a matter of course: captions, settings of other trainers, caches.
_COMPANIONS = (
    ".txt",
    ".caption",
    ".json",
    ".toml",
    ".yaml",
    ".npz",
    ".safetensors",
    ".db",
    ".ini",
)
_MOST_SIDE_INFORMATION = 256 * 2**20  # bytes of text and colour profiles in a PNG; workflows are in it too
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
MIN_SIDE = 16  # pixels; less than two latent cells hold no picture
MAX_PIXELS = 89_478_485  # Pillow's own default; kept here because other packs switch Pillow's off
MIN_RESOLUTION, MAX_RESOLUTION = 64, 2048
MAX_ASPECT = 2.0
SHOWS_REST, SHOWS_CONCEPT = "what to leave out", "the concept"
MASK_SHOWS = (SHOWS_REST, SHOWS_CONCEPT)
KEPT_SHARE = 0.75  # a crop that keeps less of the picture than this is worth a note

Loaded = tuple[str, Tensor, Tensor | None, tuple[str, ...]]  # source, pixels, mask, captions


@dataclass(frozen=True)
class Bucketing:
    """Aspect buckets of about resolution^2 pixels, or squares; `flip` adds mirrored copies."""

    resolution: int = 512
    buckets: bool = True
    flip: bool = False

    def __post_init__(self) -> None:
        _check_resolution(self.resolution)


def images_from_files(
    paths: Sequence[Path],
    rule: CaptionRule,
    bucketing: Bucketing,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[tuple[TrainingImage, ...], list[str]]:
    """Training images from files, in the order given, and notes for the user. Errors name the file.

    `on_progress(done, total)` is called after each is read and may raise to stop.
    """

    def pictures() -> Iterator[Loaded]:
        # A generator: only one picture at a time is held at its full size.
        for number, path in enumerate(paths, 1):
            yield path.name, *load_image(path), rule.captions_for(path)
            on_progress(number, len(paths))

    return _build(pictures(), bucketing)


def images_from_batches(
    batches: Sequence[Tensor],
    masks: Sequence[Tensor],
    rule: CaptionRule,
    bucketing: Bucketing,
    mask_shows: str = SHOWS_CONCEPT,
) -> tuple[tuple[TrainingImage, ...], list[str]]:
    """Training images from IMAGE batches (B, H, W, 3 or 4) in [0, 1], each of its own size, and notes for the
    user.

    masks: none, one for all batches or one for each; a mask is (B, H, W), (1, H, W) or (H, W), and takes the
        place of an alpha channel.
    mask_shows: what is 1 in them, of MASK_SHOWS: the concept, as nodes for segmentation give it, or what to
        leave out, as *Load Image* gives it (1 minus alpha); such pictures are put on white like files.

    Raises:
        ValueError: another shape or number, NaN or infinity, or values outside [0, 1].
    """
    if len(masks) not in (0, 1, len(batches)):
        raise ValueError(
            f"{len(masks)} MASKs came with {len(batches)} IMAGEs, expected none, one for all or one "
            "each. Connect both outputs of the same node."
        )
    checked = [
        _checked_batch(batch, masks[min(i, len(masks) - 1)] if masks else None, mask_shows)
        for i, batch in enumerate(batches)
    ]
    count = sum(len(batch) for batch, _ in checked)

    def pictures() -> Iterator[Loaded]:
        number = 0
        for batch, mask in checked:
            for index, picture in enumerate(batch):
                number += 1
                pixels, alpha = _on_white(picture) if picture.shape[2] == 4 else (picture, None)
                chosen = alpha if mask is None else mask[index]
                yield f"picture {number} of {count}", pixels, chosen, rule.captions_for(None)

    return _build(pictures(), bucketing)


def _checked_batch(batch: Tensor, mask: Tensor | None, mask_shows: str) -> tuple[Tensor, Tensor | None]:
    """An IMAGE batch, with alpha where it has some, and its mask `(B, H, W)`, 1 where the concept is; on the
    CPU, float32, in [0, 1].
    """
    if batch.ndim != 4 or batch.shape[0] == 0 or batch.shape[3] not in (3, 4):
        raise ValueError(
            f"The IMAGE has shape {tuple(batch.shape)}, expected (pictures, height, width, 3 or 4) with at "
            "least one picture. Connect the output of a node that gives an IMAGE."
        )
    batch = _unit_range(batch, "IMAGE")
    count, height, width, _ = batch.shape
    _check_size("The IMAGE", height, width)
    if mask is not None:
        mask = _unit_range(mask, "MASK")
        mask = mask[None] if mask.ndim == 2 else mask
        if mask_shows == SHOWS_REST and not mask.any():  # nothing is transparent; its size says nothing then
            return batch[..., :3], None
        if mask.shape not in ((count, height, width), (1, height, width)):
            raise ValueError(
                f"The MASK has shape {tuple(mask.shape)}, expected ({count} or 1, {height}, {width}) like "
                "the IMAGE. Use a mask of the same size. (Load Image gives an empty 64 x 64 mask for a "
                "picture without transparency: leave that one unconnected.)"
            )
        mask = mask.expand(count, height, width)
        if mask_shows == SHOWS_REST:
            return torch.cat([batch[..., :3], 1 - mask[..., None]], dim=-1), None
    return batch, mask


def read_extensions() -> frozenset[str]:
    """The endings of files that are read: of every picture format that this Pillow opens, with what plugins
    such as `pillow-heif` have added to it.
    """
    Image.init()
    known = Image.registered_extensions().items()
    return frozenset(e for e, form in known if form in Image.OPEN and form not in _NO_PICTURES)


def list_images(folder: Path) -> tuple[list[Path], list[str]]:
    """The picture files directly in a folder, by name, and the names of files that are left out, for nothing
    here reads them. Hidden files and what lies beside pictures as a matter of course are in neither.
    ValueError if there are no pictures.
    """
    if not folder.is_dir():
        seen = "a file" if folder.exists() else "nothing"
        raise ValueError(f"{folder}: expected a folder with pictures, found {seen} there. Check the path.")
    entries = sorted(
        (entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=lambda e: e.name
    )
    extensions, files = read_extensions(), [entry for entry in entries if entry.is_file()]
    found = [entry for entry in files if entry.suffix.lower() in extensions]
    if not found:
        others = [entry.name + ("/" if entry.is_dir() else "") for entry in entries]
        raise ValueError(
            f"{folder} has no picture. PNG, JPEG, WebP and whatever else Pillow reads is taken, sub-folders "
            f"are not; found {_some(others) if others else 'an empty folder'}. Put the pictures directly "
            "into the folder."
        )
    left_out = [f.name for f in files if f not in found and f.suffix.lower() not in _COMPANIONS]
    return found, left_out


def told_left_out(names: Sequence[str]) -> list[str]:
    """A note about files of a folder that nothing here reads, or none."""
    if not names:
        return []
    heif = any(name.lower().endswith((".heic", ".heif", ".hif")) for name in names)
    advice = " HEIC is read once the package pillow-heif registers it, or save them as JPEG." if heif else ""
    return [f"Left out, for nothing here reads them: {_some(names, 12)}.{advice}"]


def load_image(path: Path, most_pixels: int = MAX_PIXELS) -> tuple[Tensor, Tensor | None]:
    """One file as pixels (H, W, 3), upright, on white and in sRGB, and its alpha (H, W) unless opaque
    everywhere.

    Of a file with several frames the first is read. ValueError names the file when it is missing, damaged or
    truncated, has too many pixels, or is below 16 pixels on a side.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file. Check the path.")
    try:
        with _pillow_strict(), Image.open(_whole(path, most_pixels)) as opened:
            # Known from the header, before anything is unpacked.
            if opened.width * opened.height > most_pixels:
                raise Image.DecompressionBombError(f"{opened.width} x {opened.height}")
            data = _as_array(in_srgb(ImageOps.exif_transpose(opened), str(path)))
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
    _check_size(str(path), *data.shape[:2])
    if data.ndim == 2:
        return torch.from_numpy(data)[:, :, None].repeat(1, 1, 3), None
    pixels = torch.from_numpy(data)
    return _on_white(pixels) if pixels.shape[2] == 4 else (pixels, None)


def bucket_size(
    height: int, width: int, resolution: int, buckets: bool, step: int = BUCKET_STEP
) -> tuple[int, int]:
    """The (height, width) to train at: about resolution^2 pixels, from 1:2 to 2:1, multiples of `step`.

    Without `buckets`, a square. A square picture gets a square in any case.
    """
    _check_resolution(resolution)
    if height < 1 or width < 1 or step < 1 or resolution % step:
        raise ValueError(
            f"Height {height}, width {width} and step {step}: expected sides of at least 1 and a step that "
            f"divides the resolution {resolution}. Pass the picture's own size and step {BUCKET_STEP}."
        )
    if not buckets:
        return resolution, resolution
    aspect = min(max(height, width) / min(height, width), MAX_ASPECT)
    short, long = resolution / math.sqrt(aspect), resolution * math.sqrt(aspect)
    _, a, b = min(
        # Squared logs: too long and too short weigh the same, and the shape as much as the area.
        (math.log(b / a / aspect) ** 2 + math.log(a * b / resolution**2) ** 2, a, b)
        for a in _around(short, step)
        for b in _around(long, step)
        if a <= b <= MAX_ASPECT * a
    )
    return (a, b) if height <= width else (b, a)


def fit(pixels: Tensor, mask: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
    """Pixels (h, w, 3) and mask (h, w) at `size` (H, W): scaled to cover it, the overhang cut off evenly."""
    planes = pixels.permute(2, 0, 1)
    if mask is not None:
        planes = torch.cat([planes, mask[None]])
    scale = max(size[0] / planes.shape[1], size[1] / planes.shape[2])
    # Cut to what will be seen before scaling: a 16 x 10,000 strip would otherwise grow to gigabytes.
    planes = _centre(planes, math.ceil(size[0] / scale - 1e-6), math.ceil(size[1] / scale - 1e-6))
    scaled = [max(want, round(have * scale)) for want, have in zip(size, planes.shape[1:], strict=True)]
    planes = torch.nn.functional.interpolate(planes[None], size=scaled, mode="bicubic", antialias=True)[0]
    planes = _centre(planes, *size).clamp(0.0, 1.0)  # bicubic overshoots at edges
    fitted = planes[:3].permute(1, 2, 0).contiguous()
    return fitted, None if mask is None else planes[3].contiguous()


def flipped(image: TrainingImage) -> TrainingImage:
    """The mirror image, with the same captions."""
    mask = None if image.mask is None else image.mask.flip(1)
    return replace(image, pixels=image.pixels.flip(1), mask=mask, source=f"{image.source} (mirrored)")


def thumbnails(images: Sequence[TrainingImage], size: int = 256) -> Tensor:
    """All pictures as one batch (B, size, size, 3), each scaled to fit on black, so that buckets can mix."""
    if not images or size < 1:
        raise ValueError(
            f"{len(images)} pictures at size {size}: expected at least one of each. Pass pictures to show."
        )
    sheet = torch.zeros(len(images), size, size, 3)
    for cell, image in zip(sheet, images, strict=True):
        height, width, _ = image.pixels.shape
        scale = size / max(height, width)
        h, w = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (size - h) // 2, (size - w) // 2
        cell[top : top + h, left : left + w] = fit(image.pixels, None, (h, w))[0]
    return sheet


def _build(pictures: Iterable[Loaded], bucketing: Bucketing) -> tuple[tuple[TrainingImage, ...], list[str]]:
    images: list[TrainingImage] = []
    enlarged: list[str] = []
    cropped: list[str] = []
    masked: list[str] = []
    for source, pixels, mask, captions in pictures:
        height, width, _ = pixels.shape
        size = bucket_size(height, width, bucketing.resolution, bucketing.buckets)
        fitted, fitted_mask = fit(pixels, mask, size)
        scale = max(size[0] / height, size[1] / width)
        kept = size[0] * size[1] / (height * width * scale**2)
        if scale >= 1.05:
            enlarged.append(f"{source} ({width} x {height}, {scale:.1f} times)")
        if kept < KEPT_SHARE:
            cropped.append(f"{source} ({width} x {height}, {kept:.0%} kept)")
        if fitted_mask is not None:
            masked.append(source)
            if not fitted_mask.any():
                raise ValueError(
                    f"{source}: the mask (or the alpha channel) is 0 in the whole {size[1]} x {size[0]} part "
                    "that is trained on, so nothing could be learned. Expected 1 where the concept is: "
                    "invert the mask, or crop the picture around the concept."
                )
        images.append(TrainingImage(fitted, captions, fitted_mask, source))
    if not images:
        raise ValueError("0 pictures given, expected at least 1. Add a picture of the concept.")
    heads = (
        ("Smaller than the training size, so enlarged and soft", enlarged),
        ("Cropped to the centre", cropped),
        ("Has a mask, which masked_loss learns by; transparent parts are white", masked),
    )
    notes = [f"{head}: {_some(names)}." for head, names in heads if names]
    if bucketing.flip:
        notes.append(f"Mirrored copies added: {len(images)} pictures became {2 * len(images)}.")
        images += [flipped(image) for image in images]
    return tuple(images), notes


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


def _on_white(rgba: Tensor) -> tuple[Tensor, Tensor | None]:
    alpha = rgba[..., 3]
    if bool((alpha == 1.0).all()):
        return rgba[..., :3].contiguous(), None
    return (rgba[..., :3] * alpha[..., None] + (1.0 - alpha[..., None])).clamp(0.0, 1.0), alpha.contiguous()


class _NotUsableError(ValueError):
    """A sound file that holds no picture to train on."""


@contextmanager
def _pillow_strict() -> Iterator[None]:
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
    with Image.open(path) as opened:
        if opened.width * opened.height > most_pixels:
            return path  # refused by whoever opens it, before it is unpacked
    # Decoded with other bytes after what is there, a picture that was cut short has other pixels.
    ended = [data + more + _JPEG_END for more in (b"", b"\x55" * 4096)]
    first, second = (np.asarray(Image.open(BytesIO(one)).convert("RGB")) for one in ended)
    return BytesIO(ended[0]) if np.array_equal(first, second) else path


def _unit_range(tensor: Tensor, what: str) -> Tensor:
    """On the CPU, float32, in [0, 1]; a little beyond (a VAE's rounding) is clamped, more is an error."""
    if not tensor.is_floating_point():
        raise ValueError(
            f"The {what} holds {tensor.dtype}, expected floats from 0 to 1. Divide 8-bit values by 255."
        )
    tensor = tensor.detach().to("cpu", torch.float32)
    if not bool(tensor.isfinite().all()):
        raise ValueError(
            f"The {what} holds NaN or infinity, expected values from 0 to 1. The node before gave a broken "
            "picture (a VAE in half precision often does): run it in 32 bits."
        )
    if tensor.numel() and (tensor.min() < -0.01 or tensor.max() > 1.01):
        low, high = tensor.min().item(), tensor.max().item()
        raise ValueError(f"The {what} ranges from {low:g} to {high:g}, expected 0 to 1. Rescale it first.")
    return tensor.clamp(0.0, 1.0)


def _check_size(source: str, height: int, width: int) -> None:
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"{source} is {width} x {height} pixels, expected at least {MIN_SIDE} on each side. Use a larger "
            "picture."
        )


def _check_resolution(resolution: int) -> None:
    if resolution % BUCKET_STEP or not MIN_RESOLUTION <= resolution <= MAX_RESOLUTION:
        nearest = min(max(round(resolution / BUCKET_STEP) * BUCKET_STEP, MIN_RESOLUTION), MAX_RESOLUTION)
        raise ValueError(
            f"Resolution {resolution}: expected a multiple of {BUCKET_STEP} from {MIN_RESOLUTION} to "
            f"{MAX_RESOLUTION}. Use {nearest}."
        )


def _around(length: float, step: int) -> set[int]:
    return {max(step, math.floor(length / step) * step), max(step, math.ceil(length / step) * step)}


def _centre(planes: Tensor, height: int, width: int) -> Tensor:
    top, left = max(0, (planes.shape[1] - height) // 2), max(0, (planes.shape[2] - width) // 2)
    return planes[:, top : top + height, left : left + width]


def _some(names: Sequence[str], shown: int = 3) -> str:
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
