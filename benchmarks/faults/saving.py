"""Writers that are killed, and writers that write at once."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from cns_core.atomic_write import LOCK_NAME
from cns_core.memory_file import MemoryFileError, load_memory, save_memory

from .samples import memory

_ROOT = Path(__file__).parents[2]
# Saves one memory after another; says so before the first, when all is imported.
_SAVE_ON = """
import sys
from pathlib import Path
from benchmarks.faults.samples import memory
from cns_core.memory_file import save_memory
kept = [memory(seed, 60) for seed in range(3)]
print("ready", flush=True)
while True:
    for one in kept:
        save_memory(Path(sys.argv[1]), one)
"""
# Waits for the word, saves its own concepts under a name that is not its alone, and tells what came of it.
_SAVE_ONCE = """
import sys
from pathlib import Path
from benchmarks.faults.samples import memory
from cns_core.memory_file import update_memory
path, stem = Path(sys.argv[1]), sys.argv[2]
own = memory(len(stem), 20, stem)
print("ready", flush=True)
for line in sys.stdin:
    try:
        update_memory(path.with_name(line.strip()), own, replace=False)
        print("saved", flush=True)
    except ValueError as error:
        print("refused" if "already holds other concepts" in str(error) else error, flush=True)
"""


@dataclass
class Saved:
    """half_written: files that could not be read; leftovers: beside the file after the next save; lost: of
    concurrent saves those that said that they had saved and had not.
    """

    tried: int = 0
    half_written: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def killed_while_saving(count: int, seed: int) -> Saved:
    """Kill a process that saves, at a random moment, so many times."""
    found, chance = Saved(), Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        for number in range(count):
            with _python(_SAVE_ON, str(path)) as process:
                assert process.stdout is not None
                process.stdout.readline()
                time.sleep(chance.uniform(0.0, 0.15))
                process.kill()
            found.tried += 1
            try:
                if path.exists():
                    load_memory(path)
            except MemoryFileError as error:
                found.half_written.append(f"{number}: {error}")
            save_memory(path, memory(0))
            found.leftovers += [
                f.name for f in Path(folder).iterdir() if f.name not in (path.name, LOCK_NAME)
            ]
    return found


def saved_at_once(count: int) -> Saved:
    """Two processes save different concepts under one name, at once, under so many names."""
    found = Saved()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        with _python(_SAVE_ONCE, str(path), "cat") as one, _python(_SAVE_ONCE, str(path), "mouse") as other:
            writers = {"cat": one, "mouse": other}
            for process in writers.values():
                _answer(process)
            for number in range(count):
                name = f"m{number}.safetensors"
                for process in writers.values():
                    assert process.stdin is not None
                    process.stdin.write(name + "\n")
                    process.stdin.flush()
                told = {stem: _answer(process) for stem, process in writers.items()}
                found.tried += 1
                names = load_memory(path.with_name(name)).names()
                gone = [stem for stem, word in told.items() if word == "saved" and f"{stem} 0" not in names]
                if gone or sorted(told.values()) != ["refused", "saved"]:
                    found.lost.append(f"{number}: told {told}, there are {names[:3]}")
            for process in writers.values():
                process.kill()
    return found


def _answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _python(code: str, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=_ROOT, stdin=pipe, stdout=pipe, text=True)
