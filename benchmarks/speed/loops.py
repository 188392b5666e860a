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

import torch
from torch import Tensor, nn

from cns_core.host.backend import HostBackend, training_mode
from cns_core.host.model import model_family
from cns_core.host.precision import Precision
from cns_core.host.text import token_tables
from cns_core.host.training_memory import ALWAYS, NEVER, MemoryUse
from cns_core.method import Adaptation, Prepared
from cns_core.methods import METHODS
from cns_core.methods.cns import Cns
from cns_core.methods.cns.masks import NeuronMask
from cns_core.methods.cns.prepared import SelectedNeurons
from cns_core.methods.cns.selection import Selection
from cns_core.methods.directions.prepared import Forecast, Guarded
from cns_core.priors import KeptPool
from cns_core.projections import ProjectionLayout
from cns_core.protected import Protected, Protection
from cns_core.settings import TrainSettings
from cns_core.text_features import TextFeatures
from cns_core.tokens import TokenVectors
from cns_core.training import ConceptTrainer, LatentImage, StepReport, TrainingData

from .memory import PeakMemory, give_back_what_is_free
from .models import HostModel, random_mask
from .whole_unet import WholeUNet

TOKEN = "<x>"
DIRECTIONS = "directions"
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


def trainer_for(
    task: Task, backend: HostBackend, vectors: TokenVectors, method: str, prior: str, earlier: int = 0
) -> ConceptTrainer:
    """As `ContinualTrain` makes it for a concept that comes after so many others."""
    layout = model_family(backend.model).projections(
        {name: tuple(p.shape) for name, p in backend.model.model.diffusion_model.named_parameters()}
    )
    chosen = METHODS[method]
    adaptation = chosen.start(
        _prepared(method, layout), SomeConcepts(layout, earlier), chosen.Training(), backend.device
    )
    if method == DIRECTIONS:  # as they are when the token has had its share of the steps
        adaptation.load_state_dict(_found(adaptation, layout.shapes[0][1]))
    return _trainer(task, backend, adaptation, vectors, prior)


def _found(adaptation: Adaptation, width: int) -> dict[str, Tensor]:
    """The state of directions that have been found."""
    answers = adaptation.state_dict()["answers"]
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(width, answers.shape[1], generator=generator, dtype=torch.float64)
    gains = torch.linspace(100, 3, answers.shape[1], dtype=torch.float64)
    return {"answers": answers, "vectors": vectors / width**0.5, "gains": gains}


def _trainer(
    task: Task, backend: HostBackend, adaptation: Adaptation, vectors: TokenVectors, prior: str
) -> ConceptTrainer:
    give_back_what_is_free()  # of preparing, which is no part of training
    pairs = zip(task.latents, CAPTIONS, strict=True)
    images = tuple(LatentImage(z, (caption,), (CLASS_CAPTION,)) for z, caption in pairs)
    count = len(task.latents)
    pool = KeptPool(task.latents, [None] * count, [CLASS_CAPTION] * count)
    data = TrainingData(images, {(task.latents.shape[2], task.latents.shape[3]): pool})
    settings = TrainSettings(steps=task.steps, batch_size=task.batch, prior=prior)
    return ConceptTrainer(backend, data, adaptation, vectors, settings)


def _prepared(method: str, layout: ProjectionLayout) -> Prepared:
    """A random mask for methods that select entries: how long a step takes does not depend on which."""
    if method == DIRECTIONS:
        return _protecting_nothing(layout)
    if isinstance(METHODS[method], Cns):
        mask = random_mask(layout, 0)
        return SelectedNeurons(Selection(mask, mask, mask, 0.0))
    return METHODS[method].prepare(_Nothing(layout), METHODS[method].Selection())


def _protecting_nothing(layout: ProjectionLayout) -> Guarded:
    unit = torch.eye(layout.shapes[0][1], dtype=torch.float64)
    sizes = dict.fromkeys(layout.names, 1.0)
    protected = Protected(layout, Protection(), unit, unit, unit, {}, unit, sizes, (), ())
    return Guarded(protected, Forecast((), {}))


@dataclass(frozen=True)
class _Nothing:
    """Material for methods that look at nothing but which projections there are."""

    layout: ProjectionLayout
    captions: tuple[str, ...] = ()

    def weights(self) -> dict[str, Tensor]:
        return {}

    def features(self, *_: object) -> tuple[list[Tensor], list[Tensor]]:
        return [], []


class SomeConcepts:
    """What so many concepts with random masks have left."""

    def __init__(self, layout: ProjectionLayout, concepts: int) -> None:
        self.layout = layout
        self._moved = NeuronMask.empty(layout)
        for index in range(concepts):
            self._moved = self._moved | random_mask(layout, index + 1)

    def changes(self) -> dict[str, Tensor]:
        return {
            name: self.moved(name) * torch.tensor(1e-3, dtype=torch.float16) for name in self.layout.names
        }

    def moved(self, name: str) -> Tensor:
        return self._moved.dense(name)


def dreambooth(task: Task) -> list[float]:
    """All weights of the U-Net and the token, by the pack's loop."""
    with training_backend(task.loaded) as (backend, vectors):
        adaptation = WholeUNet(backend.model.model.diffusion_model)
        return _seconds(_trainer(task, backend, adaptation, vectors, "none"))


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
    """Latents for some pictures, `(n, 4, pixels / 8, pixels / 8)`."""
    return torch.randn(_IMAGES, 4, pixels // 8, pixels // 8, generator=torch.Generator().manual_seed(0))


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
