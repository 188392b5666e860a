"""What is not a training loop: selecting, applying and drawing, keeping, state, and being loaded."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cns_core.host.personalize import personalize
from cns_core.host.prepare import prepare
from cns_core.memory_file import load_memory, save_memory
from cns_core.methods import METHODS
from devtools.paths import ROOT

from .loops import random_latents, training_backend
from .memory import PeakMemory
from .models import HostModel
from .random_memories import some_memory, value_bytes
from .trainers import Task, trainer_for

CONCEPTS = 20
_DRAWING_STEPS = 5


def selecting(loaded: HostModel, _pixels: int, _rounds: int) -> dict[str, float]:
    """One concept of five captions, three times, with the default settings; encoding is timed apart, for the
    first one, which encodes the calibration prompts too, and for later ones.
    """
    cns, concept, spent = METHODS["cns"], some_concept(), []
    encoding = []
    for _ in range(3):
        moments = [time.perf_counter()]

        def on_progress(done: int, total: int, moments: list[float] = moments) -> None:
            """The last call comes after the selection, the one before it after the encoding."""
            synchronise()
            moments.append(time.perf_counter())

        prepare(loaded.model, loaded.clip, concept, None, cns, cns.Selection(), on_progress)
        spent.append(moments[-1] - moments[-2])
        encoding.append(moments[-2] - moments[0])
    return {
        "selection_s": statistics.median(spent),
        "first_encoding_s": encoding[0],
        "later_encoding_s": statistics.median(encoding[1:]),
    }


def drawing(loaded: HostModel, pixels: int, rounds: int, method: str = "cns") -> dict[str, float]:
    """Applying a memory of 20 concepts, and so many rounds of drawing with it and without, in turns; and with
    a clone of the plain model, to see how far two measurements of the same thing are apart.
    """
    memory = some_memory(loaded, CONCEPTS, method)
    plain_load = _load_seconds(loaded.model)
    with PeakMemory() as applying:
        begin = time.perf_counter()
        drawn = personalize(loaded.model, loaded.clip, memory)
        model, clip = drawn.model, drawn.clip
        synchronise()
        built = time.perf_counter() - begin
        applied = built + max(0.0, _load_seconds(model) - plain_load)
    models = [(loaded.model, loaded.clip), (model, clip), (loaded.model.clone(), loaded.clip)]
    texts = [conditioning(c) for _, c in models]
    seconds: list[list[float]] = []
    for first in range(rounds):
        turn = [0.0] * len(models)
        for which in sorted(range(len(models)), key=lambda i: (i + first) % len(models)):
            turn[which] = statistics.median(drawing_steps(models[which][0], texts[which], pixels))
        seconds.append(turn)
    plain, with_memory, _ = (statistics.median(turns) for turns in zip(*seconds, strict=True))
    return {
        "apply_s": applied,
        "apply_peak_mb": applying.megabytes,
        "plain_step_s": plain,
        "memory_step_s": with_memory,
        # Within each turn, so that a machine that grows slower or faster does not count.
        "ratio": statistics.median(turn[1] / turn[0] for turn in seconds),
        "ratio_of_a_clone": statistics.median(turn[2] / turn[0] for turn in seconds),
    }


def keeping(loaded: HostModel, _pixels: int, _rounds: int, method: str = "cns") -> dict[str, float]:
    """The file of 20 concepts, how long writing and reading it take, and the memory that reading takes."""
    memory = some_memory(loaded, CONCEPTS, method)
    values = value_bytes(memory)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memory.safetensors"
        begin = time.perf_counter()
        save_memory(path, memory)
        saved = time.perf_counter() - begin
        del memory
        with PeakMemory() as peak:
            begin = time.perf_counter()
            load_memory(path)
            read = time.perf_counter() - begin
        return {
            "mb_a_concept": path.stat().st_size / CONCEPTS / 1e6,
            "save_s": saved,
            "load_s": read,
            "values_mb": values / 2**20,
            "load_peak_mb": peak.megabytes,
        }


def state(loaded: HostModel, _pixels: int, _rounds: int) -> dict[str, float]:
    """Bytes for each selected entry: what the optimizer and the delta hold beside the model."""
    with training_backend(loaded) as (backend, vectors):
        task = Task(loaded, random_latents(64), 1, 1)
        trainer = trainer_for(task, backend, vectors, "cns", "none")
        trainer.run()
        (neurons,) = trainer.adaptation.parameter_groups()
        (values,) = neurons.parameters
        moments = sum(_bytes(value) for value in trainer.optimizer.state[values].values())
    count = values.numel()
    places = 4 * count  # int32 positions
    return {
        "value_bytes": _bytes(values) / count,
        "moment_bytes": moments / count,
        "position_bytes": places / count,
        "bytes_per_entry": round((_bytes(values) + moments + places) / count, 3),
    }


def starting(_loaded: HostModel, _pixels: int, _rounds: int) -> dict[str, float]:
    """What the host does with the pack at its start, its own nodes and its API being there already."""
    import comfy_api.latest  # noqa: F401

    import nodes  # noqa: F401  # the host's

    async def registered(module: Any) -> int:
        extension = await module.comfy_entrypoint()
        return len([node.GET_SCHEMA() for node in await extension.get_node_list()])

    begin = time.perf_counter()
    name, where = "pack_under_test", ROOT / "__init__.py"
    spec = importlib.util.spec_from_file_location(name, where, submodule_search_locations=[str(ROOT)])
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    count = asyncio.run(registered(module))
    return {"import_s": time.perf_counter() - begin, "nodes": count}


FIGURES: dict[str, Callable[[HostModel, int, int], dict[str, float]]] = {
    "selecting": selecting,
    "drawing": drawing,
    "drawing, directions": partial(drawing, method="directions"),
    "keeping": keeping,
    "keeping, directions": partial(keeping, method="directions"),
    "state": state,
    "starting": starting,
}


def some_concept() -> Any:
    """Five grey pictures with captions of their own."""
    from cns_core.concept import Concept, TrainingImage

    places = ("on a beach", "in the snow", "at night", "on a street", "in a garden")
    images = tuple(
        TrainingImage(torch.full((64, 64, 3), 0.5), (f"a photo of <my-dog> {place}",), None, place)
        for place in places
    )
    return Concept("my dog", "<my-dog>", "dog", "subject", images)


def synchronise() -> None:
    """Wait for what was sent to the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _load_seconds(model: Any) -> float:
    import comfy.model_management as management

    management.unload_all_models()
    begin = time.perf_counter()
    management.load_models_gpu([model], force_full_load=True)
    synchronise()
    return time.perf_counter() - begin


def conditioning(clip: Any) -> Any:
    """Conditioning of a prompt without learned tokens."""
    return clip.encode_from_tokens_scheduled(clip.tokenize("a photo of a dog in the snow"))


def drawing_steps(model: Any, text: Any, pixels: int) -> list[float]:
    """Seconds of each step but the first, which holds the loading."""
    import comfy.sample

    moments = [time.perf_counter()]

    def on_step(*_: object) -> None:
        synchronise()
        moments.append(time.perf_counter())

    noise = torch.randn(1, 4, pixels // 8, pixels // 8, generator=torch.Generator().manual_seed(0))
    comfy.sample.sample(
        model,
        noise,
        _DRAWING_STEPS,
        7.0,
        "euler",
        "normal",
        text,
        text,
        torch.zeros_like(noise),
        callback=on_step,
        disable_pbar=True,
        seed=0,
    )
    return [after - before for before, after in itertools.pairwise(moments[1:])]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
