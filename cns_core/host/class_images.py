"""Class images for the prior, drawn by the untouched base model
and kept on disk for the next concept of that class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor

from .draw import draw
from .kept_pictures import KeptPictures
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
    place, kept = folder / lasting_digest(made_from, prompt), KeptPictures(notes)
    for number, size in enumerate(sizes):

        def drawn(number: int = number, size: tuple[int, int] = size) -> Tensor:
            return draw(loaded, [prompt], size, [number])

        image, _ = kept.get(place / f"{number:04d}-{size[1]}x{size[0]}.png", size, drawn)
        on_image(number + 1, image)
        yield image
