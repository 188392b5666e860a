"""Class images for the prior, drawn by the untouched base model
and kept on disk for the next concept of that class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..method import ModelIdentity
from .draw import draw
from .types import Loaded


def drawn_class_images(
    folder: Path,
    base: ModelIdentity,
    loaded: Loaded,
    prompt: str,
    sizes: list[tuple[int, int]],
    on_image: Callable[[int, Tensor], None],
) -> Iterator[Tensor]:
    """One class image `(1, H, W, 3)` per entry of `sizes` (height, width), from `folder` where it was drawn
    before, else drawn and saved.

    `on_image(count, image)` is called after each and may raise to stop; what was drawn until then is kept.
    """
    key = hashlib.sha256(f"{base.fingerprint}\0{prompt}".encode()).hexdigest()[:16]
    place = folder / key
    place.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes):
        path = place / f"{number:04d}-{size[1]}x{size[0]}.png"
        if path.exists():
            pixels = np.asarray(Image.open(path).convert("RGB")).copy()
            image = torch.from_numpy(pixels).float().div(255)[None]
        else:
            image = draw(loaded, [prompt], size, [number])
            partial = path.with_suffix(".part")
            Image.fromarray(image[0].mul(255).round().byte().cpu().numpy()).save(partial, format="PNG")
            partial.replace(path)
        on_image(number + 1, image)
        yield image
