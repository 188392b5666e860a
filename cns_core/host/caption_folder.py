"""Caption files beside the pictures of a folder, written by a model that looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..atomic_write import write_atomically
from ..caption_wording import caption_of, check_prefix
from ..captions import find_caption_file, text_of
from ..concept import check_class_word
from ..picture_files import list_images, load_image, told_left_out
from . import paths
from .captioner import captioner, stop_if_cancelled
from .progress import Progress

_ROOM = 1024  # pixels of the longest side; such models see a few hundred
_TOKENS = 2  # of a model, for each word that is asked for


@dataclass(frozen=True)
class CaptionOrder:
    """What is to be written. ValueError for a class word or a prefix that cannot be used."""

    folder: Path
    class_word: str
    model: str
    overwrite: bool = False
    most_words: int = 40
    prefix: str = ""
    instruction: str = ""

    def __post_init__(self) -> None:
        check_class_word(self.class_word)
        check_prefix(self.prefix)


@dataclass(frozen=True)
class Told:
    """What happened to each picture: lines of `file: caption`, or of the reason."""

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def caption_folder(order: CaptionOrder) -> str:
    """Write the captions that are missing, or all with `overwrite`; what was done, as Markdown.

    Pictures that cannot be read are named, and the others go on. Cancel keeps what has been written.

    Raises:
        ValueError: the folder has no pictures or cannot be written, a caption file cannot be told apart, or
            there is no such model; or nothing could be captioned.
        SaveError: a file could not be written.
    """
    files, others = list_images(order.folder)
    told, notes = Told(), list(told_left_out(others))
    places = _places(files)
    waiting = [file for file in files if order.overwrite or not _kept(file, told)]
    if waiting:
        _check_read_back(waiting, places)
        paths.check_writable(places[waiting[0]])
        with Progress(len(waiting)) as progress:
            progress.phase(0, len(waiting))
            notes += _write(order, {file: places[file] for file in waiting}, told, progress)
        if not told.written and not told.kept:
            raise ValueError(f"No picture of {order.folder} could be captioned:\n" + "\n".join(told.left_out))
    return _as_text(order, told, notes)


def _write(order: CaptionOrder, places: dict[Path, Path], told: Told, progress: Progress) -> list[str]:
    with captioner(order.model) as (model, notes):
        for number, (file, place) in enumerate(places.items(), 1):
            try:
                pixels = load_image(file, room=_ROOM).pixels
            except ValueError as error:
                told.left_out.append(str(error))
                progress.phase(number, len(places))
                continue
            said = model.sentence(pixels, _TOKENS * order.most_words, order.instruction, stop_if_cancelled)
            try:
                caption = caption_of(said, order.class_word, order.prefix, order.most_words)
            except ValueError as error:
                told.left_out.append(f"{file.name}: {error}")
            else:
                _put(place, caption)
                told.written.append(f"{place.name}: `{caption}`")
            progress.phase(number, len(places), pixels[None])
    return notes


def _put(place: Path, caption: str) -> None:
    content = f"{caption}\n".encode()
    # What is the same stays as it is, so that nothing is done anew that goes by the time of a file's change.
    if not place.is_file() or place.is_symlink() or place.read_bytes() != content:
        write_atomically(place, content)


def _places(files: Sequence[Path]) -> dict[Path, Path]:
    """For each picture where its caption goes: `dog.txt`, or `dog.jpg.txt` where a `dog.png` is there too."""
    stems = [file.stem for file in files]
    return {
        file: file.with_name(f"{file.name if stems.count(file.stem) > 1 else file.stem}.txt")
        for file in files
    }


def _check_read_back(files: Sequence[Path], places: dict[Path, Path]) -> None:
    """ValueError where another file would be read in place of what is about to be written."""
    for file in files:
        shared = file.with_name(f"{file.stem}.txt")
        if places[file] != shared and shared.exists():
            alike = ", ".join(other.name for other in files if other.stem == file.stem)
            raise ValueError(
                f"{shared.name} is the caption of several pictures ({alike}), and would be read in place of "
                "new ones. Rename pictures so that each has a name of its own, or remove that file."
            )


def _kept(file: Path, told: Told) -> bool:
    """Whether a picture has a caption already, which is told; an empty file is none."""
    there = find_caption_file(file)
    if there is None:
        return False
    try:
        text = text_of(there)
    except ValueError as error:
        told.kept.append(f"{there.name}, which cannot be used: {error}")
        return True
    if text:
        told.kept.append(f"{there.name}: `{' '.join(text.split())[:300]}`")
    return bool(text)


def _as_text(order: CaptionOrder, told: Told, notes: Sequence[str]) -> str:
    total = len(told.written) + len(told.kept) + len(told.left_out)
    lines = [
        f"- {total} pictures in `{order.folder.name}`: {len(told.written)} captions written, "
        f"{len(told.kept)} kept, {len(told.left_out)} left out"
    ]
    for head, entries in (
        ("Written", told.written),
        ("Kept, for a caption was there and overwrite is off", told.kept),
        ("Left out", told.left_out),
    ):
        if entries:
            lines += ["", f"**{head}**", "", *(f"- {entry}" for entry in entries)]
    lines += ["", *(note if note.startswith("- ") else f"- {note}" for note in notes)] if notes else []
    lines += [
        "",
        "Edit the .txt files as you like: `{}` stands for the token. Load Concept Images reads them with the "
        "caption source *txt files*.",
    ]
    return "\n".join(lines)
