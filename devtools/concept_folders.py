"""Folders of pictures as concepts to learn, with names, class words and prompts to draw them with."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from small_base.world.wording import a_or_an

from .errors import DevToolError

_PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
# Four pictures of each concept: a thing in surroundings of its own, a style or a place with different things.
_SURROUNDINGS = ("on a beach", "in the snow", "at night", "on a purple background")
_THINGS = ("a house", "a cat", "a car", "a guitar")
_JOINTS = {"style": "in the style of {}", "scene": "in {}"}


@dataclass(frozen=True)
class ConceptFolder:
    """One folder of photos and what it is to be called."""

    folder: Path
    name: str
    class_word: str
    kind: str

    @property
    def token(self) -> str:
        """What prompts call it, such as `<my-panda>`."""
        return f"<{re.sub('[^A-Za-z0-9]+', '-', self.name).strip('-').lower()}>"

    @property
    def prompts(self) -> tuple[str, ...]:
        """What it is drawn with once it is learned."""
        return _prompts(self.kind, self.token)

    @property
    def plain_prompts(self) -> tuple[str, ...]:
        """Those prompts with the class word, for the model that has not learned it."""
        if self.kind == "subject":
            return _prompts(self.kind, f"{a_or_an(self.class_word)} {self.class_word}")
        # "in the style of style" would say nothing.
        return _prompts(self.kind, None if self.class_word in ("style", "place") else self.class_word)

    @property
    def pictures(self) -> list[Path]:
        """The photos in the folder, by name."""
        return _pictures(self.folder)

    @property
    def caption_source(self) -> str:
        """Where the node gets captions from: the files beside the photos, if each has one."""
        written = all(path.with_suffix(".txt").is_file() for path in self.pictures)
        return "txt files" if written else "templates"


def read_concepts(directory: Path, names: Sequence[str] | None = None) -> list[ConceptFolder]:
    """Folders with pictures in `directory`: those with these names, or every one by name.

    A `concept.json` can say name, class_word and kind.
    """
    if not directory.is_dir():
        raise DevToolError(f"{directory}: there is no such folder. Give a folder of folders of photos.")
    folders = [path for path in sorted(directory.iterdir()) if path.is_dir() and _pictures(path)]
    if not folders:
        raise DevToolError(
            f"{directory}: no folder in it holds pictures ({', '.join(sorted(_PICTURES))}). "
            "Put the photos of each concept into a folder of their own."
        )
    if names is not None:
        missing = sorted(set(names) - {folder.name for folder in folders})
        if missing:
            raise DevToolError(
                f"{directory} has no folder of pictures named {', '.join(missing)}. Restore it from the "
                "repository."
            )
        folders = [directory / name for name in names]
    return [_read_concept(folder) for folder in folders]


def pairs(concepts: Sequence[ConceptFolder]) -> list[tuple[ConceptFolder, ConceptFolder]]:
    """Which are drawn together: the first two subjects, and the first subject with each style or place."""
    subjects = [concept for concept in concepts if concept.kind == "subject"]
    others = [concept for concept in concepts if concept.kind != "subject"]
    beside = [(subjects[0], subjects[1])] if len(subjects) > 1 else []
    return beside + [(subjects[0], other) for other in others if subjects]


def halves_for_two(first: ConceptFolder, second: ConceptFolder) -> tuple[tuple[str, str], ...]:
    """Of two subjects side by side, a prompt for the left half of each picture and one for the right; none
    for a subject and a style or place, which one prompt names together.
    """
    if {first.kind, second.kind} != {"subject"}:
        return ()
    return tuple(zip(first.prompts, second.prompts, strict=True))


def prompts_for_two(first: ConceptFolder, second: ConceptFolder) -> tuple[str, ...]:
    """Pictures that show both."""
    if first.kind != "subject":
        first, second = second, first
    if second.kind == "subject":
        pair = f"a photo of {first.token} next to {second.token}"
        return tuple(f"{pair} {place}" for place in _SURROUNDINGS)
    joint = _JOINTS[second.kind].format(second.token)
    return (f"a photo of {first.token} {joint}",) * len(_SURROUNDINGS)


def class_word_of(folder_name: str) -> str:
    """The class word in a folder's name: dog6 is a dog, duck_toy a toy."""
    words = re.sub(r"[\d_-]+", " ", folder_name).split()
    if not words:
        raise DevToolError(
            f"The folder name {folder_name!r} holds no word. Rename it (dog6 is read as dog), or put a "
            'concept.json with {"class_word": "..."} into it.'
        )
    return words[-1].lower()


def _prompts(kind: str, word: str | None) -> tuple[str, ...]:
    if kind == "subject":
        return tuple(f"a photo of {word} {place}" for place in _SURROUNDINGS)
    joint = f" {_JOINTS[kind].format(word)}" if word else ""
    return tuple(f"a photo of {thing}{joint}" for thing in _THINGS)


def _read_concept(folder: Path) -> ConceptFolder:
    given: dict[str, str] = {}
    description = folder / "concept.json"
    if description.is_file():
        given = json.loads(description.read_text(encoding="utf-8"))
        unknown = sorted(set(given) - {"name", "class_word", "kind"})
        if unknown:
            raise DevToolError(
                f"{description} says {', '.join(unknown)}; known are name, class_word and kind."
            )
    return ConceptFolder(
        folder=folder.resolve(),
        name=given.get("name") or "my-" + re.sub("[^A-Za-z0-9]+", "-", folder.name).strip("-"),
        class_word=given.get("class_word") or class_word_of(folder.name),
        kind=given.get("kind", "subject"),
    )


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)
