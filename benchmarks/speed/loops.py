"""One training loop for each thing that is compared; each returns the seconds of every step.

All train on the same random latents with the same captions: same U-Net, batch, resolution and dtype.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cns_core.host.backend import HostBackend, training_mode
from cns_core.host.precision import Precision
from cns_core.host.text import token_tables
from cns_core.host.training_memory import ALWAYS, NEVER, MemoryUse
from cns_core.text_features import TextFeatures
from cns_core.tokens import TokenVectors
from cns_core.training import ConceptTrainer, StepReport

from .memory import PeakMemory
from .models import HostModel
from .trainers import CAPTIONS, CLASS_CAPTION, DIRECTIONS, TOKEN, Task, random_trainer, trainer_for
from .whole_unet import WholeUNet

_LEVEL = 500
_WARM_UP = 2

Loop = Callable[[Task], list[float]]


def bare(task: Task) -> list[float]:
    """Forward, and backward to what the first cross-attention reads: nothing trains K/V with less."""
    with training_backend(task.loaded) as (backend, _vectors), backend.weights_patched({}):
        return timed(bare_pass(task, backend), task.steps)


def bare_pass(task: Task, backend: HostBackend) -> Callable[[], None]:
    """One step of it; the backend's models must be loaded."""
    text = TextFeatures.concatenated([backend.encode([CLASS_CAPTION], None).detached()] * task.batch)
    text.cross.requires_grad_()
    noised, t = _noised(task, backend)

    def step() -> None:
        backend.predict(noised, t, text).square().mean().backward()
        text.cross.grad = None

    return step


def bare_with_text(task: Task) -> list[float]:
    """That, and the text encoder, forward and backward to the token: nothing learns a token with less."""
    with training_backend(task.loaded) as (backend, vectors), backend.weights_patched({}):
        token = {name: vector.clone().requires_grad_() for name, vector in vectors.items()}
        noised, t = _noised(task, backend)

        def step() -> None:
            text = backend.encode(CAPTIONS[: task.batch], token)
            backend.predict(noised, t, text).square().mean().backward()

        return timed(step, task.steps)


def learning(
    method: str = "cns",
    prior: str = "none",
    earlier: int = 0,
    on_step: Callable[[], None] = lambda: None,
    change: Callable[[nn.Module], None] = lambda unet: None,
    backend: type[HostBackend] = HostBackend,
    precision: Precision | None = None,
    checkpointing: str = NEVER,
) -> Loop:
    """The pack's own loop with this method and prior, after so many earlier concepts, on a changed U-Net."""

    def run(task: Task) -> list[float]:
        with training_backend(task.loaded, precision, backend, checkpointing) as (model, vectors):
            change(model.model.model.diffusion_model)
            return _seconds(trainer_for(task, model, vectors, method, prior, earlier), on_step)

    return run


def dreambooth(task: Task) -> list[float]:
    """All weights of the U-Net and the token, by the pack's loop."""
    with training_backend(task.loaded) as (backend, vectors):
        adaptation = WholeUNet(backend.model.model.diffusion_model)
        return _seconds(random_trainer(task, backend, adaptation, vectors, "none"))


def _seconds(trainer: ConceptTrainer, on_step: Callable[[], None] = lambda: None) -> list[float]:
    """Seconds of each step."""
    seconds: list[float] = []

    def reported(report: StepReport) -> None:
        seconds.append(report.seconds)
        on_step()

    trainer.run(reported)
    return seconds


def native_lora(task: Task) -> list[float]:
    """ComfyUI's own `TrainLoraNode` with its defaults (rank 8, AdamW, gradient checkpointing)."""
    import comfy.utils
    import comfy_extras.nodes_train as nodes_train

    moments = [time.perf_counter()]

    def on_progress(done: int, total: int, preview: object, node_id: object = None) -> None:
        """The node moves its progress bar once a step."""
        _synchronise()
        moments.append(time.perf_counter())

    clip = task.loaded.clip
    with torch.inference_mode():
        encoded = clip.encode_from_tokens_scheduled(clip.tokenize(CLASS_CAPTION))
    comfy.utils.set_progress_bar_global_hook(on_progress)
    try:
        with torch.inference_mode():
            nodes_train.TrainLoraNode.execute(
                model=[task.loaded.model],
                latents=[{"samples": latent[None]} for latent in task.latents],
                positive=[encoded],
                batch_size=[task.batch],
                steps=[task.steps],
                grad_accumulation_steps=[1],
                learning_rate=[5e-4],
                rank=[8],
                optimizer=["AdamW"],
                loss_function=["MSE"],
                seed=[0],
                training_dtype=["bf16" if compute_dtype(task.loaded) == torch.bfloat16 else "fp32"],
                lora_dtype=["fp32"],
                algorithm=["LoRA"],
                gradient_checkpointing=[True],
                existing_lora=["[None]"],
            )
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    return [after - before for before, after in itertools.pairwise(moments)]


def _channels_last(unet: nn.Module) -> None:
    unet.to(memory_format=torch.channels_last)


def _compiled(unet: nn.Module) -> None:
    unet.compile()


def _cuda_graphs(unet: nn.Module) -> None:
    unet.compile(mode="reduce-overhead")


LOOPS: Mapping[str, Loop] = {
    "bare forward and backward": bare,
    "bare, text encoder included": bare_with_text,
    "ContinualTrain, no prior": learning(),
    "ContinualTrain, class images": learning(prior="given class images"),
    "ContinualTrain, image-free prior": learning(prior="image-free"),
    "ContinualTrain, no prior, concept 20": learning(earlier=19),
    "ContinualTrain, directions": learning(DIRECTIONS),
    "ContinualTrain, directions, concept 20": learning(DIRECTIONS, earlier=19),
    "TrainLoraNode": native_lora,
    "Custom Diffusion": learning("all K/V"),
    "DreamBooth": dreambooth,
    "ContinualTrain, channels-last": learning(change=_channels_last),
    "ContinualTrain, compiled": learning(change=_compiled),
    "ContinualTrain, compiled with CUDA graphs": learning(change=_cuda_graphs),
    "ContinualTrain, gradient checkpointing": learning(checkpointing=ALWAYS),
    "ContinualTrain, directions, gradient checkpointing": learning(DIRECTIONS, checkpointing=ALWAYS),
}


def measure_loop(name: str, loaded: HostModel, pixels: int, batch: int, steps: int) -> dict[str, float]:
    """Seconds a step (median and spread after a warm-up), peak memory in MB above the loaded models and in
    all.
    """
    latents = random_latents(pixels)
    # Buffers of the host count as loaded.
    bare(Task(loaded, latents, batch, 1))
    with PeakMemory() as memory:
        seconds = LOOPS[name](Task(loaded, latents, batch, steps + _WARM_UP))[_WARM_UP:]
    return {
        "median_s": round(statistics.median(seconds), 4),
        "least_s": round(min(seconds), 4),
        "most_s": round(max(seconds), 4),
        "peak_mb": round(memory.megabytes, 1),
        "peak_in_all_mb": round(memory.in_all(), 1),
    }


def random_latents(pixels: int) -> Tensor:
    """Latents for some pictures, `(n, 4, pixels / 8, pixels / 8)`."""
    return torch.randn(len(CAPTIONS), 4, pixels // 8, pixels // 8, generator=torch.Generator().manual_seed(0))


def compute_dtype(loaded: HostModel) -> torch.dtype:
    """What the pack trains in on this device."""
    with training_backend(loaded) as (backend, _):
        return backend.precision.unet


@contextmanager
def training_backend(
    loaded: HostModel,
    precision: Precision | None = None,
    backend: type[HostBackend] = HostBackend,
    checkpointing: str = NEVER,
) -> Iterator[tuple[HostBackend, TokenVectors]]:
    """The pack's backend for a model, and starting vectors for `TOKEN`."""
    with training_mode():
        vectors = {name: torch.zeros(1, table.shape[1]) for name, table in token_tables(loaded.clip).items()}
        made = backend(loaded.model, loaded.clip, TOKEN, vectors, {}, precision)
        made.memory.use = MemoryUse(checkpointing)
        yield made, vectors


def timed(step: Callable[[], None], steps: int) -> list[float]:
    """Seconds of each of so many steps."""
    seconds = []
    for _ in range(steps):
        begin = time.perf_counter()
        step()
        _synchronise()
        seconds.append(time.perf_counter() - begin)
    return seconds


def _noised(task: Task, backend: HostBackend) -> tuple[Tensor, Tensor]:
    t = torch.full((task.batch,), _LEVEL, device=backend.device)
    return task.latents[: task.batch].to(backend.device), t


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
