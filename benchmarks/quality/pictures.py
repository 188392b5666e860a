"""What the bench drew: where it lies, and sheets of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from cns_core.evaluation.sheets import grouped, labelled

from .prompts import COUNT
from .report import learned_by

_GIVEN, _PLAIN, _LEARNED = 3, 2, 4  # how many of each are shown of a concept learned alone


def write_sheets(results: Sequence[dict[str, Any]], output: Path, images: Path) -> list[Path]:
    """By each method's first seed a sheet of the concepts learned alone; of each stream that was drawn after
    each concept one of its stages; of each that was drawn at the end, one of all its concepts. Runs whose
    pictures lie elsewhere, being made on another machine, have none.

    output: the file of the runs; images: the folder of the concepts' folders.
    """
    sheets: dict[str, Image.Image] = {}
    kept = kept_in(output)
    first = [record for record in results if record["seed"] == 0 and _pictures_are_in(kept, record)]
    for method in dict.fromkeys(record["method"] for record in first):
        mine = [record for record in first if record["method"] == method]
        alone = [record for record in mine if len(record["stream"]) == 1]
        given = [(record["stages"][0]["learned"], images / record["stream"][0]) for record in alone]
        if given:
            sheets[f"alone-{method}"] = given_and_learned(kept, given, method, 1)
        for record in mine:
            names = learned_by(record["stages"])
            stream = f"{names[0]}-to-{names[-1]}-{method}"
            joined = len(names) < len(record["stages"])
            if record not in alone and (joined or record["draw"] == "at the end"):
                given = [(n, images / folder) for n, folder in zip(names, record["stream"], strict=True)]
                sheets[stream] = given_and_learned(kept, given, method, len(names))
            elif record not in alone:
                sheets[stream] = stream_sheet(kept, names, method, 0)
    paths = []
    for name, sheet in sheets.items():
        paths.append(kept / f"sheet-{_as_file_name(name)}.jpg")
        sheet.save(paths[-1], quality=92)
    return paths


def write_method_sheet(records: Sequence[dict[str, Any]], output: Path) -> Path:
    """Of runs that learned the same concepts a row each, by the first seed, and what the untouched base draws
    of their class words above them. Runs whose pictures lie elsewhere, being made on another machine, have
    none. ValueError where none of them lies here.
    """
    kept = kept_in(output)
    first = [record for record in records if record["seed"] == 0 and _pictures_are_in(kept, record)]
    if not first:
        raise ValueError(
            f"No pictures of these runs are in {kept}. Copy them there from where they were drawn."
        )
    concepts = learned_by(first[0]["stages"])
    rows = [("the class word" + "s" * (len(concepts) > 1), [plain_name(concept) for concept in concepts])]
    for record in first:
        names = [kept_name(concept, record["method"], 0, len(concepts)) for concept in concepts]
        rows.append((record["method"], names))
    path = kept / f"methods-{'-'.join(concepts)}.jpg"
    shown = [(label, [part for name in names for part in _parts(kept / name)]) for label, names in rows]
    labelled(shown).save(path, quality=90)
    return path


def _pictures_are_in(kept: Path, record: dict[str, Any]) -> bool:
    return record["draw"] != "never" and all(
        (kept / kept_name(concept, record["method"], record["seed"], min(count, concepts))).is_file()
        for concepts in [len(learned_by(record["stages"]))]
        for count, stage in enumerate(record["stages"], start=1)
        for concept in stage["scores"]
    )


def kept_in(output: Path) -> Path:
    """The folder of what was drawn for the runs in a file."""
    return output.with_suffix("")


def kept_name(concept: str, method: str, seed: int, concepts: int) -> str:
    """The file with the pictures of `concept` when so many concepts were learned."""
    return f"{concept}-{_as_file_name(method)}-seed{seed}-of{concepts}.png"


def plain_name(concept: str) -> str:
    """The file with the untouched base's pictures of the class word."""
    return f"{concept}-class-word.png"


def given_and_learned(
    kept: Path, given: Sequence[tuple[str, Path]], method: str, concepts: int
) -> Image.Image:
    """Two concepts a row: pictures that were given, the class word, and what was learned, by the first seed.

    given: of each concept its name and the folder of its pictures; concepts: how many were learned then.
    """
    rows = []
    for concept, folder in given:
        plain = _parts(kept / plain_name(concept))
        learned = _parts(kept / kept_name(concept, method, 0, concepts))
        side = learned[0].width
        pictures = [Image.open(path).convert("RGB") for path in sorted(folder.glob("[0-9][0-9].png"))]
        shown = [picture.resize((side, side), Image.Resampling.LANCZOS) for picture in pictures[:_GIVEN]]
        rows.append([shown, plain[:_PLAIN], learned[:_LEARNED]])
    half = (len(rows) + 1) // 2
    return grouped([a + b for a, b in itertools.zip_longest(rows[:half], rows[half:], fillvalue=[])])


def stream_sheet(kept: Path, concepts: Sequence[str], method: str, seed: int) -> Image.Image:
    """A row for each concept of a stream: two pictures for each stage from when it was learned."""
    rows: list[list[Sequence[Image.Image | None]]] = []
    for index, concept in enumerate(concepts):
        stages = [
            _parts(kept / kept_name(concept, method, seed, count))[1:7:4]
            for count in range(index + 1, len(concepts) + 1)
        ]
        rows.append([*([[None, None]] * index), *stages])
    return grouped(rows)


def _parts(path: Path) -> list[Image.Image]:
    row = Image.open(path).convert("RGB")
    side = row.width // COUNT
    return [row.crop((side * index, 0, side * (index + 1), row.height)) for index in range(COUNT)]


def _as_file_name(method: str) -> str:
    return method.replace(" ", "-").replace("/", "")
