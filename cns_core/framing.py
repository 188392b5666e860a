"""What a training picture was cut from. SDXL is conditioned on it beside the text (2307.01952, section 2.2),
so that the softness of small pictures and the cut-off heads of large ones are not learned as part of what
they show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Framing:
    """original: height and width in pixels before scaling; crop: top and left of the part that is trained on,
    in pixels of the scaled picture. How large that part is, its latents say.
    """

    original: tuple[int, int]
    crop: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if min(self.original) < 1 or min(self.crop) < 0:
            raise ValueError(
                f"A picture of {self.original[1]} x {self.original[0]} pixels, cut at {self.crop} (top, "
                "left): expected sides of at least 1 and no negative place. Pass what it was cut from."
            )


# Of the rows of a batch; None for a picture that the model has drawn, which is whole and as large as it was.
Framings = Sequence[Framing | None]


def centred(original: tuple[int, int], size: tuple[int, int]) -> Framing:
    """Of a picture that was scaled to cover `size` (height, width), the overhang cut off evenly."""
    scale = max(want / have for want, have in zip(size, original, strict=True))
    top, left = (max(0, round(have * scale) - want) // 2 for want, have in zip(size, original, strict=True))
    return Framing(original, (top, left))


def told(pictures: Sequence[tuple[Framing, tuple[int, int]]]) -> str:
    """For people, what a model is told of pictures, each with the (height, width) that it is trained at."""
    originals = sorted({framing.original for framing, _ in pictures}, key=lambda side: side[0] * side[1])
    ends = dict.fromkeys(f"{width} x {height}" for height, width in (originals[0], originals[-1]))
    small = sum(
        any(have < want for have, want in zip(framing.original, size, strict=True))
        for framing, size in pictures
    )
    line = f"The model is told how large each picture was before it was scaled: {' to '.join(ends)} pixels."
    if small:
        line += (
            f" {small} of {len(pictures)} {'was' if small == 1 else 'were'} smaller than at training, which "
            "tells it where their softness is from; larger ones teach more."
        )
    return line
