"""A page to draw numbers on with PIL alone, and what goes on it: round ticks, colours of heat, short labels.

Lines and letters are drawn at twice the size and reduced, which smooths them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Box = tuple[float, float, float, float]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

INK, FAINT_INK, GRID, PAPER = (38, 42, 51), (104, 110, 122), (226, 229, 234), (255, 255, 255)
LINES = ((32, 99, 178), (214, 93, 14), (34, 139, 84), (160, 60, 150), (181, 137, 0), (90, 90, 90))
HEAT = np.array([(68, 84, 140), (44, 133, 141), (53, 183, 121), (240, 196, 25)])  # low to high
SCALE = 2  # drawn larger by this and reduced
LABEL_WIDTH = 290  # of a bar, in pixels


class Canvas:
    """A white page whose coordinates are pixels of the finished picture."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        self.page = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
        self.draw = ImageDraw.Draw(self.page)

    def text(
        self,
        at: tuple[float, float],
        text: str,
        size: int,
        colour: tuple[int, ...] = INK,
        anchor: str = "lm",
        width: float = math.inf,
    ) -> None:
        font = font_of(size * SCALE)
        place = (at[0] * SCALE, at[1] * SCALE)
        self.draw.text(place, shortened(text, font, width * SCALE), colour, font, anchor=anchor)

    def fits(self, text: str, size: int, width: float) -> bool:
        return font_of(size * SCALE).getlength(text) <= width * SCALE

    def line(self, points: Sequence[tuple[float, float]], colour: tuple[int, ...], width: float) -> None:
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self.draw.line(scaled, colour, round(width * SCALE), joint="curve")

    def polyline(self, points: Sequence[tuple[float, float]], colour: tuple[int, ...], width: float) -> None:
        """A line through the points, a dot for a single one, nothing for none."""
        if len(points) == 1:
            x, y = points[0]
            self.line([(x - 3, y), (x + 3, y)], colour, 6)
        elif points:
            self.line(points, colour, width)

    def bar(self, box: Box, label: str, share: float, value: str, size: int) -> None:
        """Label, heat-coloured bar on a pale track, and value, from left to right within `box`."""
        left, top, right, bottom = box
        middle, start, end = (top + bottom) / 2, left + LABEL_WIDTH + 8, right - 56
        self.text((left + LABEL_WIDTH, middle), label, size, anchor="rm", width=LABEL_WIDTH)
        self.rectangle((start, top, end, bottom), GRID)
        if share > 0:
            self.rectangle((start, top, start + max(1.0, share * (end - start)), bottom), heat(share))
        self.text((right, middle), value, size, FAINT_INK, "rm")

    def rectangle(self, box: Box, colour: tuple[int, ...]) -> None:
        left, top, right, bottom = (round(side * SCALE) for side in box)
        self.draw.rectangle((left, top, right - 1, bottom - 1), colour)

    def mark(self, at: tuple[float, float], corners: int, colour: tuple[int, ...], filled: bool) -> None:
        """A disc for 0 corners, else a triangle, a square, ...; only its edge unless filled."""
        (x, y), radius = (side * SCALE for side in at), 4.5 * SCALE
        inside = colour if filled else PAPER
        if corners:
            self.draw.regular_polygon(
                (x, y, radius * 1.25), corners, fill=inside, outline=colour, width=SCALE * 2
            )
        else:
            self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), inside, colour, SCALE * 2)

    def picture(self, picture: Image.Image, corner: tuple[float, float]) -> None:
        """Its own size, upper left corner there."""
        larger = picture.convert("RGB").resize(
            (picture.width * SCALE, picture.height * SCALE), Image.Resampling.NEAREST
        )
        self.page.paste(larger, (round(corner[0] * SCALE), round(corner[1] * SCALE)))

    def image(self) -> Image.Image:
        return self.page.resize(self.size, Image.Resampling.BOX)

    def tensor(self) -> Tensor:
        """(1, H, W, 3) float32 in [0, 1], as the host shows pictures."""
        return torch.from_numpy(np.asarray(self.image()).astype(np.float32) / 255.0).unsqueeze(0)


def ticks(low: float, high: float) -> list[float]:
    """About six round numbers whose first and last enclose `low` and `high`."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 5))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor * 5 >= span)
    first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def heat(share: float) -> tuple[int, ...]:
    """From blue at 0 to yellow at 1."""
    position = min(1.0, share) * (len(HEAT) - 1)
    low = min(int(position), len(HEAT) - 2)
    return tuple(int(part) for part in HEAT[low] + (position - low) * (HEAT[low + 1] - HEAT[low]))


def font_of(size: int) -> Font:
    return ImageFont.load_default(size)


def shortened(text: str, font: Font, width: float) -> str:
    """`text`, its middle replaced by three dots when it is wider than `width`: both ends tell names apart."""
    if font.getlength(text) <= width:
        return text
    for keep in range(len(text) - 1, 1, -1):
        short = text[: keep // 2] + "..." + text[len(text) - (keep - keep // 2) :]
        if font.getlength(short) <= width:
            return short
    return "..."
