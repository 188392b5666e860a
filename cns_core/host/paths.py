"""Where things lie on the user's disk. Every path that comes from outside is checked here, at use: its parts
must not lead out of its folder. Links inside it are followed: only the machine's owner makes any there.
"""

from __future__ import annotations

import os
import tempfile
from datetime import datetime
from pathlib import Path

import folder_paths

from ..file_names import checked_file_name
from ..values import odd_character, shown

MEMORY_FOLDER = "concept_memory"
_MAX_PART = 255  # bytes; no file system has longer names
PHOTO_CLIP = "openai/clip-vit-base-patch32"  # the one the paper scores with
CAPTION_MODEL = "Salesforce/blip-image-captioning-base"


def register_memory_folder() -> None:
    """`models/concept_memory/`, kept when the user's own configuration names other places for it."""
    place = os.path.join(folder_paths.models_dir, MEMORY_FOLDER)
    paths, extensions = folder_paths.folder_names_and_paths.get(MEMORY_FOLDER, ([], set()))
    folder_paths.folder_names_and_paths[MEMORY_FOLDER] = (
        paths if place in paths else [*paths, place],
        set(extensions) | {".safetensors"},
    )


def image_folders() -> list[str]:
    """Folders below ComfyUI's input directory, as relative names."""
    return list(folder_paths.get_input_subfolders())


def image_folder(name: str) -> Path:
    """A folder of photos below the input directory.
    ValueError when it is unknown or leads outside (`..`, absolute).
    """
    root = Path(folder_paths.get_input_directory())
    known = ", ".join(image_folders()[:20]) or "none yet"
    if not name.strip():
        raise ValueError(
            f"No folder is named. Put your photos into a folder below {root} and choose it. Folders there: "
            f"{known}."
        )
    path = inside(root, name, "ComfyUI's input directory")
    if not path.is_dir():
        raise ValueError(
            f"There is no folder {name!r} below ComfyUI's input directory {root}. Folders there: {known}."
        )
    return path


def files_of(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of change of each file in a folder, so that a change of any of them shows. Hidden
    files are in it as little as in what is read.
    """
    return sorted(
        (f.name, f.stat().st_size, f.stat().st_mtime_ns)
        for f in folder.iterdir()
        if f.is_file() and not f.name.startswith(".")
    )


def memory_file(name: str) -> Path:
    """An existing memory file. ValueError when it is unknown or leads outside its folder."""
    for root in folder_paths.get_folder_paths(MEMORY_FOLDER):
        if Path(root).is_dir():
            path = inside(Path(root), name, "the concept_memory folder")
            if path.is_file():
                return path
    known = ", ".join(memory_files()) or "none yet"
    raise ValueError(f"There is no concept memory {name!r} in models/{MEMORY_FOLDER}/. Files there: {known}.")


def memory_files() -> list[str]:
    return list(folder_paths.get_filename_list(MEMORY_FOLDER))


def memory_root() -> Path:
    """The folder that new memories are saved in."""
    return Path(folder_paths.get_folder_paths(MEMORY_FOLDER)[0])


def memory_folders() -> list[Path]:
    """Those that are there, in the order in which files are looked for."""
    return [
        Path(os.path.realpath(r)) for r in folder_paths.get_folder_paths(MEMORY_FOLDER) if os.path.isdir(r)
    ]


def memory_folder_of(path: Path) -> Path:
    """The one in which a memory file lies. ValueError where it lies in none of them."""
    for root in memory_folders():
        if root in path.parents:
            return root
    raise ValueError(f"{path.name} lies in no concept_memory folder.")


def model_files(kind: str) -> list[str]:
    """Safetensors files in the host's folders for `embeddings` or `loras`, as relative names."""
    return [name for name in folder_paths.get_filename_list(kind) if name.lower().endswith(".safetensors")]


def model_file(kind: str, name: str) -> Path:
    """One of them. ValueError when it is unknown, no safetensors file, or leads outside its folder."""
    for root in folder_paths.get_folder_paths(kind):
        if Path(root).is_dir() and name.lower().endswith(".safetensors"):
            path = inside(Path(root), name, f"the {kind} folder")
            if path.is_file():
                return path
    known = ", ".join(model_files(kind)[:20]) or "none yet"
    raise ValueError(f"There is no safetensors file {name!r} in models/{kind}/. Files there: {known}.")


def new_memory_file(name: str) -> Path:
    """Where a memory of that name is to be saved; sub-folders are allowed, leaving the folder is not.
    ValueError for a name that no file can have.
    """
    return inside(
        memory_root(), checked_file_name(name, datetime.now()) + ".safetensors", "the concept_memory folder"
    )


def check_writable(path: Path) -> None:
    """ValueError when no file can be written there; makes the folder where it is missing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(
            f"{path.name} cannot be saved in {path.parent}: {error.strerror}. Make the folder writable, or "
            "choose another file name."
        ) from error


def work_folder(kind: str) -> Path:
    """A folder of the pack's own: `runs` (checkpoints, finished results), `class_images`. Safe to
    delete between runs.
    """
    return Path(folder_paths.get_user_directory()) / "cns" / kind


def clip_model(name: str) -> str:
    """A CLIP model: the path of the folder of that name below `models/` where there is one,
    else the name as a Hugging Face id.
    """
    if not name.strip():
        raise ValueError(
            "No CLIP model is named, and without one no picture can be scored. "
            f"Give a Hugging Face id such as {PHOTO_CLIP}, which is fetched at first use (600 MB), "
            "or a CLIP folder below models/."
        )
    return _folder_or_id(name)


def caption_model(name: str) -> str:
    """An image-to-text model, found as `clip_model` finds one."""
    if not name.strip():
        raise ValueError(
            "No caption model is named, and without one no caption can be written. "
            f"Give a Hugging Face id such as {CAPTION_MODEL}, which is fetched at first use (1 GB), "
            "or the folder of an image-to-text model below models/."
        )
    return _folder_or_id(name)


def _folder_or_id(name: str) -> str:
    folder = inside(models_folder(), name.strip(), "the models folder")
    if folder.is_dir():
        return str(folder)
    first = folder.parent if "/" in name else None
    if first is not None and first.is_dir():  # a folder of that name is meant, and nobody else need know
        there = ", ".join(sorted(p.name for p in first.iterdir() if p.is_dir())[:20]) or "none"
        raise ValueError(
            f"There is no folder {name.strip()!r} below {models_folder()}. Folders in {first}: {there}."
        )
    return name.strip()


def models_folder() -> Path:
    return Path(folder_paths.models_dir)


def inside(root: Path, name: str, what: str) -> Path:
    """A path below a folder, as it is named from outside. ValueError for one that leads out of it, or that
    no file system can have; what: the folder, in words.
    """
    # Both kinds of separator, whatever the system: a workflow may come from another one.
    parts = name.replace("\\", "/").split("/")
    odd = odd_character(name)
    if odd is not None or any(len(part.encode("utf-8")) > _MAX_PART for part in parts):
        fault = f"it has the character {odd}" if odd else f"a part of it takes more than {_MAX_PART} bytes"
        raise ValueError(f"{shown(name)} names nothing inside {what} ({root}): {fault}.")
    if (
        ".." in parts
        or os.path.isabs(name)
        or os.path.splitdrive(name)[0]
        or not any(p.strip(".") for p in parts)
    ):
        raise ValueError(
            f"{name!r} lies outside {what} ({root}); name something inside it, without .. or absolute paths."
        )
    return Path(os.path.realpath(root)) / name
