"""Class images for the prior, drawn by the untouched base model
and kept on disk for the next concept of that class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .draw import draw
from .known_models import lasting_digest
from .types import Loaded


def drawn_class_images(
    folder: Path,
    made_from: str,
    loaded: Loaded,
    prompt: str,
    sizes: list[tuple[int, int]],
    on_image: Callable[[int, Tensor], None],
) -> Iterator[Tensor]:
    """One class image `(1, H, W, 3)` per entry of `sizes` (height, width), from `folder` where it was drawn
    before, else drawn and saved.

    made_from: key of the models that draw them.
    `on_image(count, image)` is called after each and may raise to stop; what was drawn until then is kept.
    """
    place = folder / lasting_digest(made_from, prompt)
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
