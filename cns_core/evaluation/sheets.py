"""Several pictures as one: with captions, in groups, in quarters, below each other."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageOps

_CELL = 192
_CAPTION = 18
_GAP = 6
_PAPER = (255, 255, 255)

Cell = tuple[str, Image.Image | None]


def captioned(rows: Sequence[Sequence[Cell]]) -> Image.Image:
    """Pictures with captions above them, row by row; None leaves a cell empty."""
    columns = max(len(row) for row in rows)
    step_x, step_y = _CELL + _GAP, _CELL + _CAPTION + _GAP
    sheet = Image.new("RGB", (columns * step_x + _GAP, len(rows) * step_y + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        for x, (caption, picture) in enumerate(row):
            corner = (x * step_x + _GAP, y * step_y + _GAP)
            pen.text((corner[0] + 2, corner[1] + 3), _fitted(pen, caption), fill="black")
            if picture is not None:
                fitted = ImageOps.pad(picture.convert("RGB"), (_CELL, _CELL), color="white")
                sheet.paste(fitted, (corner[0], corner[1] + _CAPTION))
    return sheet


def grouped(rows: Sequence[Sequence[Sequence[Image.Image | None]]], gap: int = 8) -> Image.Image:
    """Rows of groups of equally large pictures, with gaps between the groups; None leaves a place empty.

    Example:
        >>> red = Image.new("RGB", (10, 10), "red")
        >>> grouped([[[red, red], [red]], [[None, red]]]).size
        (38, 20)
    """
    sizes = {picture.size for row in rows for group in row for picture in group if picture is not None}
    if len(sizes) != 1:
        raise ValueError(f"Pictures of {len(sizes)} sizes, {sorted(sizes)}; give some, all of one size.")
    ((width, height),) = sizes
    across = max(sum(map(len, row)) * width + gap * (len(row) - 1) for row in rows)
    sheet = Image.new("RGB", (across, len(rows) * height), _PAPER)
    for down, row in enumerate(rows):
        x = 0
        for group in row:
            for picture in group:
                if picture is not None:
                    sheet.paste(picture.convert("RGB"), (x, down * height))
                x += width
            x += gap
    return sheet


def labelled(rows: Sequence[tuple[str, Sequence[Image.Image]]], columns: int = 2) -> Image.Image:
    """Rows of equally large pictures, each with its label above it, down one column and then the next."""
    (width, height), most = rows[0][1][0].size, max(len(pictures) for _, pictures in rows)
    down = -(-len(rows) // columns)
    step_x, step_y = most * width + 2 * _GAP, height + _CAPTION
    sheet = Image.new("RGB", (columns * step_x - _GAP, down * step_y + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, (label, pictures) in enumerate(rows):
        x, y = number // down * step_x, number % down * step_y
        pen.text((x + 2, y + 3), label, fill="black")
        for place, picture in enumerate(pictures):
            sheet.paste(picture.convert("RGB"), (x + place * width, y + _CAPTION))
    return sheet


def quartered(pictures: Sequence[Image.Image]) -> Image.Image:
    """Up to four pictures of one size as one, two in a row; a single one stays as it is."""
    if len(pictures) == 1:
        return pictures[0]
    return grouped([[pictures[:2]], [pictures[2:4]]] if len(pictures) > 2 else [[pictures]], gap=0)


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of any size below each other, left edges aligned."""
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), _PAPER)
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
