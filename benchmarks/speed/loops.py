"""One training loop for each thing that is compared; each returns the seconds of every step.

All train on the same random latents with the same captions: same U-Net, batch, resolution and dtype.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cns_core.delta import PackedDelta
from cns_core.host.backend import HostBackend, training_mode
from cns_core.host.model import model_layout
from cns_core.host.precision import Precision
from cns_core.host.text import token_tables
from cns_core.methods.cns.masks import NeuronMask
from cns_core.settings import TrainSettings
from cns_core.text_features import TextFeatures
from cns_core.tokens import TokenVectors
from cns_core.training import ConceptTrainer, LatentImage, StepReport, TrainingData

from .memory import PeakMemory, give_back_what_is_free
from .models import HostModel, random_mask

TOKEN = "<x>"
_PLACES = (
    "in the snow",
    "on a beach",
    "at night",
    "on a street",
    "in a garden",
    "by a lake",
    "indoors",
    "asleep",
)
CAPTIONS = tuple(f"a photo of {TOKEN} {place}" for place in _PLACES)
CLASS_CAPTION = "a photo of a dog in the snow"
_LEVEL = 500
_IMAGES = len(_PLACES)
_WARM_UP = 2


@dataclass(frozen=True)
class Task:
    """What every loop trains on."""

    loaded: HostModel
    latents: Tensor  # (n, 4, h, w)
    batch: int
    steps: int


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
    """The same with the text encoder, forward and backward to the token: nothing learns a token with less."""
    with training_backend(task.loaded) as (backend, vectors), backend.weights_patched({}):
        token = {name: vector.clone().requires_grad_() for name, vector in vectors.items()}
        noised, t = _noised(task, backend)

        def step() -> None:
            text = backend.encode(CAPTIONS[: task.batch], token)
            backend.predict(noised, t, text).square().mean().backward()

        return timed(step, task.steps)


def continual(
    prior: str,
    earlier: int = 0,
    on_step: Callable[[], None] = lambda: None,
    change: Callable[[nn.Module], None] = lambda unet: None,
    precision: Precision | None = None,
) -> Loop:
    """`ContinualTrain`'s own loop with this prior, after so many earlier concepts, on a changed U-Net."""

    def run(task: Task) -> list[float]:
        with training_backend(task.loaded, precision) as (backend, vectors):
            change(backend.model.model.diffusion_model)
            trainer = continual_trainer(task, backend, vectors, prior, earlier)
            seconds: list[float] = []

            def reported(report: StepReport) -> None:
                seconds.append(report.seconds)
                on_step()

            trainer.run(reported)
            return seconds

    return run


def continual_trainer(
    task: Task, backend: HostBackend, vectors: TokenVectors, prior: str, earlier: int = 0
) -> ConceptTrainer:
    """As `ContinualTrain` makes it for a concept that comes after so many others."""
    layout = model_layout(backend.model)
    before = NeuronMask.empty(layout)
    for index in range(earlier):
        before = before | random_mask(layout, index + 1)
    values = torch.from_numpy(before.flat()) * torch.tensor(1e-3, dtype=torch.float16)
    delta = PackedDelta(random_mask(layout, 0), before, values, backend.device)
    give_back_what_is_free()  # of making those masks, which is no part of training
    pairs = zip(task.latents, CAPTIONS, strict=True)
    images = tuple(LatentImage(z, (caption,), (CLASS_CAPTION,)) for z, caption in pairs)
    sizes = {(task.latents.shape[2], task.latents.shape[3]): task.latents}
    data = TrainingData(images, CLASS_CAPTION, sizes)
    settings = TrainSettings(steps=task.steps, batch_size=task.batch, prior=prior)
    return ConceptTrainer(backend, data, delta, vectors, settings)


def native_lora(task: Task) -> list[float]:
    """ComfyUI's own `TrainLoraNode` with its defaults (rank 8, AdamW, gradient checkpointing)."""
    import comfy_extras.nodes_train as nodes_train

    moments = [time.perf_counter()]

    class Clock:
        """In place of the node's progress bar, which it moves once a step."""

        def __init__(self, total: int) -> None:
            moments[0] = time.perf_counter()

        def update(self, by: int) -> None:
            _synchronise()
            moments.append(time.perf_counter())

    clip = task.loaded.clip
    with torch.inference_mode():
        told = clip.encode_from_tokens_scheduled(clip.tokenize(CLASS_CAPTION))
    theirs, nodes_train.ProgressBar = nodes_train.ProgressBar, Clock
    try:
        with torch.inference_mode():
            nodes_train.TrainLoraNode.execute(
                model=[task.loaded.model],
                latents=[{"samples": latent[None]} for latent in task.latents],
                positive=[told],
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
        nodes_train.ProgressBar = theirs
    return [after - before for before, after in itertools.pairwise(moments)]


def custom_diffusion(task: Task) -> list[float]:
    """All K/V entries as dense fp32 parameters beside the new token, Adam."""
    with training_backend(task.loaded) as (backend, vectors):
        from cns_core.host.model import clean_weights

        layout = model_layout(backend.model)
        weights = {
            name: weight.detach().float().to(backend.device).clone().requires_grad_()
            for name, weight in clean_weights(backend.model, layout).items()
        }
        token = {name: vector.clone().requires_grad_() for name, vector in vectors.items()}
        optimizer = torch.optim.Adam([*weights.values(), *token.values()], lr=1e-5)
        functions = {name: _in_place_of(weight) for name, weight in weights.items()}
        with backend.weights_patched(functions):
            return _trained(task, backend, optimizer, token)


def dreambooth(task: Task) -> list[float]:
    """All weights of the U-Net as fp32 parameters, Adam; computing in the same dtype as the others."""
    with training_backend(task.loaded) as (backend, _), backend.weights_patched({}):
        unet = backend.model.model.diffusion_model
        for parameter in unet.parameters():  # stand-ins while models are hung; the host's own come back
            parameter.data = parameter.data.to(torch.float32, copy=True)
            parameter.requires_grad_()
        return _trained(task, backend, torch.optim.Adam(unet.parameters(), lr=5e-6), None)


def _channels_last(unet: nn.Module) -> None:
    unet.to(memory_format=torch.channels_last)


def _compiled(unet: nn.Module) -> None:
    unet.compile()


def _cuda_graphs(unet: nn.Module) -> None:
    unet.compile(mode="reduce-overhead")


def _checkpointed(unet: nn.Module) -> None:
    """As `TrainLoraNode` does it: every transformer block and every residual block."""
    from comfy.ldm.modules.attention import BasicTransformerBlock
    from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock

    for module in unet.modules():
        if isinstance(module, BasicTransformerBlock | ResBlock):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)


LOOPS: Mapping[str, Loop] = {
    "bare forward and backward": bare,
    "bare, text encoder included": bare_with_text,
    "ContinualTrain, no prior": continual("none"),
    "ContinualTrain, class images": continual("given class images"),
    "ContinualTrain, image-free prior": continual("image-free"),
    "ContinualTrain, no prior, concept 20": continual("none", earlier=19),
    "TrainLoraNode": native_lora,
    "Custom Diffusion": custom_diffusion,
    "DreamBooth": dreambooth,
    "ContinualTrain, channels-last": continual("none", change=_channels_last),
    "ContinualTrain, compiled": continual("none", change=_compiled),
    "ContinualTrain, compiled with CUDA graphs": continual("none", change=_cuda_graphs),
    "ContinualTrain, gradient checkpointing": continual("none", change=_checkpointed),
}


def measure_loop(name: str, loaded: HostModel, pixels: int, batch: int, steps: int) -> dict[str, float]:
    """Seconds a step (median and spread after a warm-up), peak memory in MB above the loaded models."""
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
    }


def random_latents(pixels: int) -> Tensor:
    """Of some pictures, `(n, 4, pixels / 8, pixels / 8)`."""
    return torch.randn(_IMAGES, 4, pixels // 8, pixels // 8, generator=torch.Generator().manual_seed(0))


def compute_dtype(loaded: HostModel) -> torch.dtype:
    """What the pack trains in on this device."""
    with training_backend(loaded) as (backend, _):
        return backend.precision.unet


@contextmanager
def training_backend(
    loaded: HostModel, precision: Precision | None = None
) -> Iterator[tuple[HostBackend, TokenVectors]]:
    """The pack's backend for a model, and starting vectors for `TOKEN`."""
    with training_mode():
        vectors = {name: torch.zeros(table.shape[1]) for name, table in token_tables(loaded.clip).items()}
        yield HostBackend(loaded.model, loaded.clip, TOKEN, vectors, {}, precision), vectors


def _trained(
    task: Task, backend: HostBackend, optimizer: torch.optim.Optimizer, token: TokenVectors | None
) -> list[float]:
    """A plain loop: draw noise, encode, predict, step."""
    generator = torch.Generator().manual_seed(0)
    frozen = backend.encode([CLASS_CAPTION] * task.batch, None).detached() if token is None else None

    def step() -> None:
        picks = torch.randint(len(task.latents), (task.batch,), generator=generator)
        z0 = task.latents[picks]
        noise = torch.randn(z0.shape, generator=generator).to(backend.device)
        t = torch.randint(1000, (task.batch,), generator=generator).to(backend.device)
        text = frozen if frozen is not None else backend.encode([CAPTIONS[i] for i in picks], token)
        noised = backend.levels.add_noise(z0.to(backend.device), noise, t)
        error = backend.predict(noised, t, text) - noise
        optimizer.zero_grad(set_to_none=True)
        error.square().mean().backward()
        optimizer.step()

    return timed(step, task.steps)


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


def _in_place_of(weight: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda original: weight.to(original.dtype)


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
