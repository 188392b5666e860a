"""Where the development tools keep things. All of it lies in the repository and is ignored by git."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
OWN_COMFYUI = ROOT / ".comfyui"
HOST_BASE = ROOT / ".host"
REQUIREMENTS = ROOT / "requirements-dev.txt"

COMFYUI_VARIABLE = "COMFYUI_DIR"


def comfyui_directory() -> Path:
    """The ComfyUI to develop against: the folder in `COMFYUI_DIR`, else the one that the set-up unpacks."""
    chosen = os.environ.get(COMFYUI_VARIABLE)
    return Path(chosen).expanduser().resolve() if chosen else OWN_COMFYUI


def venv_python() -> Path:
    """The interpreter of the development environment, whether it exists yet or not."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
