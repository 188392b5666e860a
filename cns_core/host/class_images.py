"""Class images for the prior, drawn by the untouched base model
and kept on disk for the next concept of that class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .draw import draw
from .kept import keep, set_aside, used
from .known_models import lasting_digest
from .types import Loaded


def drawn_class_images(
    folder: Path,
    made_from: str,
    loaded: Loaded,
    prompt: str,
    sizes: list[tuple[int, int]],
    on_image: Callable[[int, Tensor], None],
    notes: list[str],
) -> Iterator[Tensor]:
    """One class image `(1, H, W, 3)` per entry of `sizes` (height, width), from `folder` where it was drawn
    before, else drawn and kept there.

    made_from: key of the models that draw them.
    `on_image(count, image)` is called after each and may raise to stop; what was drawn until then is kept.
    notes: gets what there is to tell about one that was not sound or could not be kept.
    """
    place = folder / lasting_digest(made_from, prompt)
    told = ""
    for number, size in enumerate(sizes):
        path = place / f"{number:04d}-{size[1]}x{size[0]}.png"
        image = _kept(path, size, notes)
        if image is None:
            # As a file holds it, so that it is the same when it comes from there the next time.
            pixels = draw(loaded, [prompt], size, [number])[0].mul(255).round().byte().cpu().contiguous()
            image = _in_unit_range(pixels)
            if not told and (told := _keep(path, pixels)):
                notes.append(told)
        on_image(number + 1, image)
        yield image


def _kept(path: Path, size: tuple[int, int], notes: list[str]) -> Tensor | None:
    if not path.exists():
        return None
    try:
        with Image.open(BytesIO(path.read_bytes()), formats=["PNG"]) as opened:
            if (opened.height, opened.width) != size:  # known before anything is unpacked
                raise ValueError(f"it is {opened.width} x {opened.height}, expected {size[1]} x {size[0]}")
            pixels = np.asarray(opened.convert("RGB")).copy()
    except Exception as error:  # Pillow's decoders raise anything from SyntaxError to struct.error
        notes.append(set_aside(path, f"{type(error).__name__}: {error}"))
        return None
    used(path)
    return _in_unit_range(torch.from_numpy(pixels))


def _keep(path: Path, pixels: Tensor) -> str:
    content = BytesIO()
    Image.fromarray(pixels.numpy()).save(content, format="PNG")
    return keep(path, content.getvalue())


def _in_unit_range(pixels: Tensor) -> Tensor:
    return pixels.float().div(255)[None]
