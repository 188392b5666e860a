"""Files in ComfyUI's output directory, counted as the host's own save nodes count theirs."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path

import folder_paths

from ..file_names import checked_file_name
from .paths import inside


def check_output_name(name: str) -> str:
    """The name with dates filled in, its parts separated by `/`. ValueError for one that no file in the
    output directory can have.
    """
    checked = checked_file_name(name, datetime.now())
    inside(Path(folder_paths.get_output_directory()), checked, "ComfyUI's output directory")
    return checked


def write_counted(name: str, ending: str, content: str) -> Path:
    """Write the text to the next free `name_00001_.ending`; nothing is ever overwritten. The path.

    Raises:
        ValueError: the name is not usable.
        OSError: the directory cannot be written.
    """
    checked = check_output_name(name)
    folder, stem, number, *_ = folder_paths.get_save_image_path(checked, folder_paths.get_output_directory())
    while True:
        path = Path(folder) / f"{stem}_{number:05}_{ending}"
        try:
            file = path.open("x", encoding="utf-8", newline="")
        except FileExistsError:  # of another program, since the numbers were looked at
            number += 1
            continue
        try:
            with file:
                file.write(content)
        except OSError:
            path.unlink(missing_ok=True)  # a part of it would be taken for the whole
            raise
        return path


def written(name: str, ending: str, content: str) -> str:
    """Write it as `write_counted` does; what to tell about it, also where the disk does not let it."""
    try:
        return f"written: {write_counted(name, ending, content)}"
    except OSError as error:
        told = (
            f"{name}{ending} could not be written into {folder_paths.get_output_directory()}: "
            f"{error.strerror}. Free some space, or make the folder writable."
        )
        logging.warning(f"CNS: {told}")
        return told
