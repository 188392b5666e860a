"""The one place that turns pictures, from files and IMAGE tensors, into training images.

Pixels are (height, width, 3) float32 in [0, 1]; a mask is (height, width) float32, 1 where the concept is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .captions import CaptionRule
from .concept import BUCKET_STEP, TrainingImage
from .framing import centred
from .masked_pictures import load_masked, masks_beside
from .picture_files import Picture, check_size, on_white, some_of

MIN_RESOLUTION, MAX_RESOLUTION = 64, 2048
MAX_ASPECT = 2.0
SHOWS_REST, SHOWS_CONCEPT = "what to leave out", "the concept"
MASK_SHOWS = (SHOWS_REST, SHOWS_CONCEPT)
KEPT_SHARE = 0.75  # a crop that keeps less of the picture than this is worth a note

_BYTES = 12  # of a pixel that is held for training: three float32
_SHEET = 2**26  # bytes of a contact sheet, at most


class _Loaded(NamedTuple):
    source: str
    picture: Picture
    captions: tuple[str, ...]
    mask_file: str | None = None  # the name of the file that its mask is from


def _nothing(done: int, total: int) -> None:
    """Shows no progress."""


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
    on_progress: Callable[[int, int], None] = _nothing,
    most_bytes: float = math.inf,
) -> tuple[tuple[TrainingImage, ...], list[str]]:
    """Training images from files, in the order given, and notes for the user. Errors name the file. A mask
    beside a picture (`mask_files.py`) takes the place of its alpha channel.

    `on_progress(done, total)` is called after each is read and may raise to stop.
    most_bytes: of memory that the training images may take; ValueError, before any is read, for more.
    """
    _check_room(len(paths), bucketing, most_bytes)
    room = math.ceil(bucketing.resolution * math.sqrt(MAX_ASPECT)) + BUCKET_STEP
    masks = masks_beside(paths)

    def pictures() -> Iterator[_Loaded]:
        # A generator: only one picture at a time is held at its full size.
        for number, path in enumerate(paths, 1):
            mask = masks.get(path)
            picture, captions = load_masked(path, mask, room), rule.captions_for(path)
            yield _Loaded(path.name, picture, captions, None if mask is None else mask.name)
            on_progress(number, len(paths))

    return _build(pictures(), bucketing)


def images_from_batches(
    batches: Sequence[Tensor],
    masks: Sequence[Tensor],
    rule: CaptionRule,
    bucketing: Bucketing,
    mask_shows: str = SHOWS_CONCEPT,
    on_progress: Callable[[int, int], None] = _nothing,
    most_bytes: float = math.inf,
) -> tuple[tuple[TrainingImage, ...], list[str]]:
    """Training images from IMAGE batches (B, H, W, 3 or 4) in [0, 1], each of its own size, and notes for the
    user.

    masks: none, one for all batches or one for each; a mask is (B, H, W), (1, H, W) or (H, W), and takes the
        place of an alpha channel.
    mask_shows: what is 1 in them, of MASK_SHOWS: the concept, as nodes for segmentation give it, or what to
        leave out, as *Load Image* gives it (1 minus alpha); such pictures are put on white like files.
    on_progress, most_bytes: as of `images_from_files`.

    Raises:
        ValueError: another shape or number, NaN or infinity, values outside [0, 1], or too many of them.
    """
    if len(masks) not in (0, 1, len(batches)):
        raise ValueError(
            f"{len(masks)} MASKs came with {len(batches)} IMAGEs, expected none, one for all or one "
            "each. Connect both outputs of the same node."
        )
    _check_room(sum(len(batch) for batch in batches), bucketing, most_bytes)
    checked = [
        _checked_batch(batch, masks[min(i, len(masks) - 1)] if masks else None, mask_shows)
        for i, batch in enumerate(batches)
    ]
    count = sum(len(batch) for batch, _ in checked)

    def pictures() -> Iterator[_Loaded]:
        number = 0
        for batch, mask in checked:
            for index, picture in enumerate(batch):
                number += 1
                pixels, alpha = on_white(picture) if picture.shape[2] == 4 else (picture, None)
                chosen = alpha if mask is None else mask[index]
                size = (picture.shape[0], picture.shape[1])
                name = f"picture {number} of {count}"
                yield _Loaded(name, Picture(pixels, chosen, size), rule.captions_for(None))
                on_progress(number, count)

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
    check_size("The IMAGE", height, width)
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


def _check_room(count: int, bucketing: Bucketing, most_bytes: float) -> None:
    """ValueError when so many training images would take more memory than there is for them."""
    needed = count * bucketing.resolution**2 * _BYTES * (2 if bucketing.flip else 1)
    if needed > most_bytes:
        flip = ", mirrored too," if bucketing.flip else ""
        raise ValueError(
            f"{count} pictures at resolution {bucketing.resolution}{flip} take {needed / 1e9:.1f} GB of "
            f"memory, and {most_bytes / 1e9:.1f} GB can be had. Use fewer pictures (a handful teaches a "
            "concept), a lower resolution, or close other programs."
        )


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
    """All pictures as one batch (B, side, side, 3), each scaled to fit on black, so that buckets can mix.

    side: `size`, or less where there are so many that the sheet would become large.
    """
    if not images or size < 1:
        raise ValueError(
            f"{len(images)} pictures at size {size}: expected at least one of each. Pass pictures to show."
        )
    size = min(size, max(16, math.isqrt(_SHEET // (_BYTES * len(images)))))
    sheet = torch.zeros(len(images), size, size, 3)
    for cell, image in zip(sheet, images, strict=True):
        top, left, height, width = place_in(size, image.pixels)
        cell[top : top + height, left : left + width] = fit(image.pixels, None, (height, width))[0]
    return sheet


def place_in(side: int, pixels: Tensor) -> tuple[int, int, int, int]:
    """Top, left, height and width of a picture (h, w, 3), scaled to fit into the middle of a square."""
    scale = side / max(pixels.shape[:2])
    height, width = (max(1, round(length * scale)) for length in pixels.shape[:2])
    return (side - height) // 2, (side - width) // 2, height, width


def _build(pictures: Iterable[_Loaded], bucketing: Bucketing) -> tuple[tuple[TrainingImage, ...], list[str]]:
    images: list[TrainingImage] = []
    enlarged: list[str] = []
    cropped: list[str] = []
    masked: list[str] = []
    for source, (pixels, mask, (height, width)), captions, mask_file in pictures:
        size = bucket_size(height, width, bucketing.resolution, bucketing.buckets)
        fitted, fitted_mask = fit(pixels, mask, size)
        scale = max(size[0] / height, size[1] / width)
        kept = size[0] * size[1] / (height * width * scale**2)
        if scale >= 1.05:
            enlarged.append(f"{source} ({width} x {height}, {scale:.1f} times)")
        if kept < KEPT_SHARE:
            cropped.append(f"{source} ({width} x {height}, {max(kept, 0.01):.0%} kept)")
        if fitted_mask is not None:
            masked.append(f"{source} ({mask_file})" if mask_file else source)
            if not fitted_mask.any():
                what = mask_file or "the mask (or the alpha channel)"
                raise ValueError(
                    f"{source}: {what} is 0 in the whole {size[1]} x {size[0]} part "
                    "that is trained on, so nothing could be learned. Expected 1 where the concept is: "
                    "invert the mask, or crop the picture around the concept."
                )
        framing = centred((height, width), size)
        images.append(TrainingImage(fitted, captions, fitted_mask, source, framing))
    if not images:
        raise ValueError("0 pictures given, expected at least 1. Add a picture of the concept.")
    heads = (
        ("Smaller than the training size, so enlarged and soft", enlarged),
        ("Cropped to the centre", cropped),
        ("Has a mask, which masked loss learns by; transparent parts are white", masked),
    )
    notes = [f"{head}: {some_of(names)}." for head, names in heads if names]
    if bucketing.flip:
        notes.append(f"Mirrored copies added: {len(images)} pictures became {2 * len(images)}.")
        images += [flipped(image) for image in images]
    return tuple(images), notes


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
