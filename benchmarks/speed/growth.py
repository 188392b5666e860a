"""How learning and drawing grow with the number of concepts, and learning with the number of steps."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cns_core.host.personalize import personalize
from cns_core.memory_file import save_memory

from .figures import conditioning, drawing_steps
from .loops import bare, learning, random_latents
from .memory import PeakMemory
from .models import HostModel
from .random_memories import some_memory
from .trainers import Task

_COUNTS = (1, 2, 5, 10, 20, 35, 50)
_LEARNING_STEPS, _WARM_UP = 8, 2
# Steps of one long run, and of a stretch that a median is taken of.
_STEPS, _SPAN = (500 if torch.cuda.is_available() else 200), 25


def with_concepts(loaded: HostModel, pixels: int) -> dict[str, Any]:
    """For each number of concepts: seconds and memory of learning the last one of them, seconds of applying
    them and of a step of drawing with them, and the size of their file.
    """
    bare(Task(loaded, random_latents(pixels), 2, 1))  # buffers of the host count as loaded
    points = []
    for count in _COUNTS:
        task = Task(loaded, random_latents(pixels), 2, _LEARNING_STEPS + _WARM_UP)
        with PeakMemory() as peak:
            steps = learning(earlier=count - 1)(task)[_WARM_UP:]
        memory = some_memory(loaded, count)
        with torch.inference_mode():
            begin = time.perf_counter()
            personal = personalize(loaded.model, loaded.clip, memory)
            applied = time.perf_counter() - begin
            drawn = drawing_steps(personal.model, conditioning(personal.clip), pixels)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "memory.safetensors"
            save_memory(path, memory)
            size = path.stat().st_size
        points.append(
            {
                "concepts": count,
                "learning_step_s": statistics.median(steps),
                "learning_peak_mb": peak.megabytes,
                "apply_s": applied,
                "drawing_step_s": statistics.median(drawn),
                "file_mb": size / 1e6,
            }
        )
    return {"points": points}


def with_steps(loaded: HostModel, pixels: int) -> dict[str, Any]:
    """One long run: seconds a step, seconds since its beginning, and memory, in each stretch of it."""
    task = Task(loaded, random_latents(pixels), 2, _STEPS)
    bare(Task(loaded, random_latents(pixels), 2, 1))
    peaks, moments = [], []

    def on_step() -> None:
        peaks.append(memory.so_far())
        moments.append(time.perf_counter())

    with PeakMemory() as memory:
        begin = time.perf_counter()
        seconds = learning(on_step=on_step)(task)
    points = [
        {
            "steps": first + _SPAN,
            "learning_step_s": statistics.median(seconds[first : first + _SPAN]),
            "so_far_s": moments[first + _SPAN - 1] - begin,
            "learning_peak_mb": peaks[first + _SPAN - 1],
        }
        for first in range(0, _STEPS, _SPAN)
    ]
    return {"points": points, "peak_in_all_mb": memory.in_all()}


GROWTH: dict[str, Callable[[HostModel, int], dict[str, Any]]] = {
    "concepts": with_concepts,
    "steps": with_steps,
}
