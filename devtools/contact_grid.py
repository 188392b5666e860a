"""Pictures with captions on one sheet."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageOps

_CELL = 192
_CAPTION = 18
_GAP = 6

Cell = tuple[str, Image.Image | None]


def grid(rows: Sequence[Sequence[Cell]]) -> Image.Image:
    """One sheet of captioned pictures, row by row; None leaves a cell empty."""
    columns = max(len(row) for row in rows)
    step_x, step_y = _CELL + _GAP, _CELL + _CAPTION + _GAP
    sheet = Image.new("RGB", (columns * step_x + _GAP, len(rows) * step_y + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        for x, (caption, picture) in enumerate(row):
            corner = (x * step_x + _GAP, y * step_y + _GAP)
            pen.text((corner[0] + 2, corner[1] + 3), _fitted(pen, caption), fill="black")
            if picture is not None:
                fitted = ImageOps.pad(picture.convert("RGB"), (_CELL, _CELL), color="white")
                sheet.paste(fitted, (corner[0], corner[1] + _CAPTION))
    return sheet


def quartered(pictures: Sequence[Image.Image]) -> Image.Image:
    """Up to four pictures of one size as one, two in a row; a single one stays as it is."""
    if len(pictures) == 1:
        return pictures[0]
    width, height = pictures[0].size
    whole = Image.new("RGB", (2 * width, 2 * height), "white")
    for index, picture in enumerate(pictures[:4]):
        whole.paste(picture.convert("RGB"), (index % 2 * width, index // 2 * height))
    return whole


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures below each other, left edges aligned."""
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        sheet.paste(picture.convert("RGB"), (0, top))
        top += picture.height
    return sheet


def _fitted(pen: ImageDraw.ImageDraw, caption: str) -> str:
    if pen.textlength(caption) <= _CELL:
        return caption
    while caption and pen.textlength(caption + "...") > _CELL:
        caption = caption[:-1]
    return caption + "..."
