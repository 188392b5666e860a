"""Pictures of what a prior keeps, drawn by the model itself
and kept on disk for the next concept that needs the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from torch import Tensor

from .draw import draw
from .kept_pictures import KeptPictures
from .known_models import lasting_digest
from .types import Loaded


def drawn_pictures(
    folder: Path,
    made_from: str,
    loaded: Loaded,
    wanted: Sequence[tuple[str, tuple[int, int]]],
    on_picture: Callable[[int, Tensor], None],
    notes: list[str],
) -> Iterator[Tensor]:
    """One picture `(1, H, W, 3)` for each of `wanted`, a prompt and a size (height, width), from `folder`
    where it was drawn before, else drawn and kept there. Its number is its seed.

    made_from: key of the models that draw them.
    `on_picture(count, picture)` is called after each and may raise to stop; what was drawn is kept.
    notes: gets what there is to tell about one that was not sound or could not be kept.
    """
    kept = KeptPictures(notes)
    for number, (prompt, size) in enumerate(wanted):

        def drawn(number: int = number, prompt: str = prompt, size: tuple[int, int] = size) -> Tensor:
            return draw(loaded, [prompt], size, [number])

        place = folder / lasting_digest(made_from, prompt)
        picture, _ = kept.get(place / f"{number:04d}-{size[1]}x{size[0]}.png", size, drawn)
        on_picture(number + 1, picture)
        yield picture
