"""`dev.py base` and `dev.py bench base`: the tools in small_base, run with the environment's Python."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import DevToolError
from .paths import ROOT, comfyui_directory, venv_python

_MODULE = ("-m", "small_base")


def run_base(words: Sequence[str]) -> int:
    """Run `python -m small_base` with these words, in the folder that the user is in.

    Does not return where the system can put one program in another's place: Ctrl-C and SIGTERM then reach the
    tool that saves its work because of them, and no parent that would kill it meanwhile.
    """
    command = [str(venv_python()), *_MODULE, *with_tokenizer(words, comfyui_directory())]
    environment = repository_environment()
    if os.name != "nt":
        os.execve(command[0], command, environment)
    signal.signal(signal.SIGINT, lambda *_: None)  # the tool gets it too, and ends when it has saved
    return subprocess.call(command, env=environment)


def expand(packed: Path, out: Path) -> None:
    """Make ComfyUI's checkpoint of a packed base.

    Raises:
        DevToolError: with what the tool printed, if it failed.
    """
    command = [sys.executable, *_MODULE, "expand", str(packed), "--out", str(out)]
    done = subprocess.run(command, env=repository_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise DevToolError(f"{packed} could not be expanded: {done.stderr.strip() or done.stdout.strip()}")


def repository_environment() -> dict[str, str]:
    """This process's, with the repository on Python's path, whatever folder the user is in."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def with_tokenizer(words: Sequence[str], comfyui: Path) -> list[str]:
    """The words, with ComfyUI's copy of CLIP's tokenizer for `build`; one that is named in them wins."""
    # Only to find the command among options and their values.
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--work")
    parser.add_argument("command", nargs="?")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    found = parser.parse_known_args(list(words))[0]
    if found.command != "build":
        return list(words)
    # Right after the command: of an option given twice the last one counts.
    place = len(words) - len(found.rest)
    return [*words[:place], "--tokenizer", str(comfyui / "comfy" / "sd1_tokenizer"), *words[place:]]


def bench_words(size: str, work: Path | None, packed: Path | None) -> list[str]:
    """The words for `run_base` that judge a base."""
    folder = ["--work", str(work)] if work else []
    file = ["--packed", str(packed)] if packed else []
    return [*folder, "bench", "--size", size, *file]
