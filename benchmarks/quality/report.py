"""What the bench found, as tables, and what it drew, as sheets of pictures."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from cns_core.evaluation.sheets import grouped

from .prompts import COUNT

_GIVEN, _PLAIN, _LEARNED = 3, 2, 4  # how many of each are shown of a concept learned alone


def summary(results: Sequence[dict[str, Any]]) -> str:
    """Per method: how well concepts are learned, what is left of them, and what those lose that others come
    after, all of them and the first alone; of each the mean over the runs, and the lowest and highest run.
    """
    lines = ["| method | runs | learned | at the end | lost by earlier ones | lost by the first |"]
    lines.append("|---|---|---|---|---|---|")
    for method in dict.fromkeys(r["method"] for r in results):
        mine = [r["stages"] for r in results if r["method"] == method]
        learned = [
            statistics.mean(stage["scores"][stage["learned"]]["score"] for stage in stages) for stages in mine
        ]
        final = [statistics.mean(s["score"] for s in stages[-1]["scores"].values()) for stages in mine]
        lost = [[_lost(stage, stages[-1]) for stage in stages[:-1]] or [0.0] for stages in mine]
        by_all, by_first = [statistics.mean(values) for values in lost], [values[0] for values in lost]
        cells = (
            f"{statistics.mean(values):.3f} ({min(values):.2f} to {max(values):.2f})"
            for values in (learned, final, by_all, by_first)
        )
        lines.append(f"| {method} | {len(mine)} | {' | '.join(cells)} |")
    alone = [record for record in results if len(record["stream"]) == 1]
    if alone:
        lines += ["", "| concept | method | seed | class word | learned | its own pictures | score |"]
        lines.append("|---|---|---|---|---|---|---|")
    for record in alone:
        name, scores = record["stages"][0]["learned"], record["stages"][0]["scores"]
        cells = (f"{scores[name][key]:.3f}" for key in ("class_word", "clip_i", "real", "score"))
        lines.append(f"| {name} | {record['method']} | {record['seed']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _lost(stage: dict[str, Any], last: dict[str, Any]) -> float:
    """By the concept learned in this stage, until the last one."""
    name = stage["learned"]
    return float(stage["scores"][name]["score"] - last["scores"][name]["score"])


def write_sheets(results: Sequence[dict[str, Any]], output: Path, images: Path) -> list[Path]:
    """A sheet of the concepts learned alone, and one of each stream, by each method's first seed.

    output: the file of the runs; images: the folder of the concepts' folders.
    """
    sheets: dict[str, Image.Image] = {}
    first = [record for record in results if record["seed"] == 0]
    for method in dict.fromkeys(record["method"] for record in first):
        mine = [record for record in first if record["method"] == method]
        alone = [record for record in mine if len(record["stream"]) == 1]
        given = [(record["stages"][0]["learned"], images / record["stream"][0]) for record in alone]
        if given:
            sheets[f"alone-{method}"] = alone_sheet(kept_in(output), given, method, 0)
        for record in mine:
            if record not in alone:
                names = [stage["learned"] for stage in record["stages"]]
                sheets[f"{names[0]}-to-{names[-1]}-{method}"] = stream_sheet(
                    kept_in(output), names, method, 0
                )
    paths = []
    for name, sheet in sheets.items():
        paths.append(kept_in(output) / f"sheet-{_as_file_name(name)}.jpg")
        sheet.save(paths[-1], quality=92)
    return paths


def kept_in(output: Path) -> Path:
    """The folder of what was drawn for the runs in a file."""
    return output.with_suffix("")


def kept_name(concept: str, method: str, seed: int, concepts: int) -> str:
    """The file with the pictures of `concept` when so many concepts were learned."""
    return f"{concept}-{_as_file_name(method)}-seed{seed}-of{concepts}.png"


def plain_name(concept: str) -> str:
    """The file with the untouched base's pictures of the class word."""
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
