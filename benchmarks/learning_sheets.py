"""Pictures of what `learning.py` drew: of concepts learned alone, and of a stream by its stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

PROMPTS = 8  # drawn for each concept, side by side in one file
_GIVEN, _PLAIN, _LEARNED = 3, 2, 4  # how many of each are shown of a concept learned alone
_GAP, _PAPER = 8, (255, 255, 255)


def kept_name(concept: str, method: str, seed: int, concepts: int) -> str:
    """Of the file with the pictures of `concept` when so many concepts were learned."""
    return f"{concept}-{method.replace(' ', '-')}-seed{seed}-of{concepts}.png"


def plain_name(concept: str) -> str:
    """Of the file with the untouched base's pictures of the class word."""
    return f"{concept}-class-word.png"


def alone_sheet(kept: Path, given: Sequence[tuple[str, Path]], method: str, seed: int) -> Image.Image:
    """Two concepts a row: pictures that were given, the class word, and what was learned.

    given: of each concept its name and the folder of its pictures.
    """
    rows = []
    for concept, folder in given:
        plain = _parts(kept / plain_name(concept))
        learned = _parts(kept / kept_name(concept, method, seed, 1))
        side = learned[0].width
        pictures = [Image.open(path).convert("RGB") for path in sorted(folder.glob("[0-9][0-9].png"))]
        shown = [picture.resize((side, side), Image.Resampling.LANCZOS) for picture in pictures[:_GIVEN]]
        rows.append([shown, plain[:_PLAIN], learned[:_LEARNED]])
    half = (len(rows) + 1) // 2
    return _laid_out([left + right for left, right in zip(rows[:half], rows[half:] or [[]], strict=False)])


def stream_sheet(kept: Path, concepts: Sequence[str], method: str, seed: int) -> Image.Image:
    """A row for each concept of a stream: two pictures for each stage from when it was learned."""
    rows = []
    for index, concept in enumerate(concepts):
        stages = [
            _parts(kept / kept_name(concept, method, seed, count))[1:7:4]
            for count in range(index + 1, len(concepts) + 1)
        ]
        blank = Image.new("RGB", stages[0][0].size, _PAPER)
        rows.append([*([[blank, blank]] * index), *stages])
    return _laid_out(rows)


def _parts(path: Path) -> list[Image.Image]:
    row = Image.open(path).convert("RGB")
    side = row.width // PROMPTS
    return [row.crop((side * index, 0, side * (index + 1), row.height)) for index in range(PROMPTS)]


def _laid_out(rows: Sequence[Sequence[Sequence[Image.Image]]]) -> Image.Image:
    """Rows of groups of equally large pictures, with gaps between the groups."""
    width, height = rows[0][0][0].size
    across = max(sum(len(group) for group in row) * width + _GAP * (len(row) - 1) for row in rows)
    sheet = Image.new("RGB", (across, len(rows) * height), _PAPER)
    for down, row in enumerate(rows):
        x = 0
        for group in row:
            for picture in group:
                sheet.paste(picture, (x, down * height))
                x += width
            x += _GAP
    return sheet
