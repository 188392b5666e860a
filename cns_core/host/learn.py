"""ContinualTrain in the host: check everything, prepare latents and class images, train, and keep what was
learned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import comfy.model_management as management
import torch
from torch import Tensor

from ..captions import template_captions
from ..concept import Concept
from ..delta import PackedDelta
from ..memory import ConceptMemory, LearnedConcept
from ..settings import TrainSettings
from ..tokens import initial_vectors
from ..training import ConceptTrainer, StepReport, TrainingData
from .backend import HostBackend, training_mode
from .class_images import drawn_class_images
from .draw import draw
from .latents import class_latents, encode_concept, encode_pixels
from .model import Base, read_base
from .paths import work_folder
from .progress import Progress
from .runs import Run, run_key
from .select import Neurons, check_concept
from .text import token_tables, word_ids

# A run that is killed outright loses at most this many steps; Cancel and errors lose none.
_CHECKPOINT_EVERY = 100


@dataclass(frozen=True)
class Preview:
    """A picture of `prompt` every `every` steps; no prompt or 0 means none."""

    prompt: str = ""
    every: int = 0


@dataclass(frozen=True, eq=False)
class Learned:
    """The new memory and what to tell about how it came about."""

    memory: ConceptMemory
    notes: list[str]


def learn(
    model: Any,
    clip: Any,
    vae: Any,
    concept: Concept,
    neurons: Neurons,
    memory: ConceptMemory | None,
    class_images: Tensor | None,
    settings: TrainSettings,
    preview: Preview,
) -> Learned:
    """Learn one concept on top of `memory`. The loaded MODEL, CLIP and VAE are left exactly as they were,
    whatever happens.
    """
    base = read_base(model, clip)
    check_concept(concept, base, clip, memory)
    _check_neurons(neurons, base, concept)
    _check_prior(settings, class_images)
    run = Run(work_folder("runs"), _key(base, clip, concept, neurons, memory, class_images, settings))
    if (finished := run.result()) is not None:
        return Learned(
            finished,
            ["This run was finished before; its result was taken from disk. Change the seed to train anew."],
        )
    with Progress(settings.steps) as progress:
        data = _training_data(model, clip, vae, base, concept, class_images, settings, progress)
        try:
            return _train(
                model, clip, vae, base, concept, neurons, memory, data, settings, preview, run, progress
            )
        except (torch.OutOfMemoryError, management.OOM_EXCEPTION) as error:
            if not _is_out_of_memory(error):
                raise
            raise RuntimeError(
                f"Out of memory while training at batch size {settings.batch_size} ({error}). Lower the "
                "concept's resolution or "
                "batch_size (gradient_accumulation makes up for it), use prior 'none' or 'image-free', or "
                "close other programs. "
                "What was learned until then is kept: queue the same graph again to go on."
            ) from error


def _train(
    model: Any,
    clip: Any,
    vae: Any,
    base: Base,
    concept: Concept,
    neurons: Neurons,
    memory: ConceptMemory | None,
    data: TrainingData,
    settings: TrainSettings,
    preview: Preview,
    run: Run,
    progress: Progress,
) -> Learned:
    earlier = memory if memory is not None else ConceptMemory(base.identity, base.layout)
    notes: list[str] = []
    with training_mode():
        tables = {n: t.detach().float().cpu() for n, t in token_tables(clip).items()}
        vectors = initial_vectors(tables, word_ids(clip, concept.class_word))
        backend = HostBackend(model, clip, concept.token, vectors, earlier.token_vectors())
        mask = neurons.selection.concept_mask
        delta = PackedDelta(mask, earlier.union_mask(), earlier.values(), backend.device)
        state = run.checkpoint()
        trainer = ConceptTrainer(backend, data, delta, vectors, settings, resume=state)
        if state is not None:
            notes.append(
                f"Resumed after step {trainer.step} of {settings.steps}, where an earlier run of this graph "
                "stopped."
            )
        on_step = _reporter(trainer, backend, delta, vae, data, settings, preview, run, progress)
        try:
            trainer.run(on_step)
        except BaseException:  # Cancel is a BaseException on newer hosts; nothing is swallowed
            if trainer.step:
                run.save_checkpoint(trainer.state())
            raise
        final = trainer.state()
    learned = LearnedConcept(
        name=concept.name,
        token=concept.token,
        class_word=concept.class_word,
        kind=concept.kind,
        mask=mask,
        values=final.values.half(),
        token_vectors=final.token_vectors,
        settings={"train": settings.as_dict(), "select": vars(neurons.settings).copy()},
        losses=torch.tensor(final.losses, dtype=torch.float32).reshape(-1, 3),
        learned_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    result = earlier.with_learned(learned)
    run.finish(result)
    return Learned(result, notes)


def _reporter(
    trainer: ConceptTrainer,
    backend: HostBackend,
    delta: PackedDelta,
    vae: Any,
    data: TrainingData,
    settings: TrainSettings,
    preview: Preview,
    run: Run,
    progress: Progress,
) -> Callable[[StepReport], None]:
    size = (data.images[0].latents.shape[1] * 8, data.images[0].latents.shape[2] * 8)

    def on_step(report: StepReport) -> None:
        picture = None
        last = report.step == report.steps
        if preview.prompt and preview.every and (report.step % preview.every == 0 or last):
            with torch.no_grad():
                delta.update()
            with backend.suspended():
                picture = draw(backend.model, backend.clip, vae, preview.prompt, size, settings.seed % 2**32)
        if report.step % _CHECKPOINT_EVERY == 0 and not last:
            run.save_checkpoint(trainer.state())
        progress.step(report, picture)  # raises when the user cancelled

    return on_step


def _training_data(
    model: Any,
    clip: Any,
    vae: Any,
    base: Base,
    concept: Concept,
    class_images: Tensor | None,
    settings: TrainSettings,
    progress: Progress,
) -> TrainingData:
    images = encode_concept(model, vae, concept)
    prompt = concept.class_caption(template_captions(concept.kind, concept.token)[0])
    sizes = sorted({(i.latents.shape[1], i.latents.shape[2]) for i in images})
    pools: dict[tuple[int, int], Tensor] = {}
    if settings.uses_prior and settings.prior == "given class images" and class_images is not None:
        pools = class_latents(model, vae, class_images, set(sizes))
    elif settings.uses_prior and settings.prior == "drawn class images":
        count = max(settings.class_image_count, len(sizes))
        wanted = [(h * 8, w * 8) for h, w in (sizes[i % len(sizes)] for i in range(count))]

        def on_image(done: int, image: Tensor) -> None:
            progress.phase(done, count, image)

        folder = work_folder("class_images")
        gathered: dict[tuple[int, int], list[Tensor]] = {size: [] for size in sizes}
        for image in drawn_class_images(folder, base.identity, model, clip, vae, prompt, wanted, on_image):
            latents = encode_pixels(model, vae, image)[0]
            gathered[(latents.shape[1], latents.shape[2])].append(latents)
        pools = {size: torch.stack(latents) for size, latents in gathered.items()}
    return TrainingData(images, prompt, pools)


def _check_neurons(neurons: Neurons, base: Base, concept: Concept) -> None:
    if neurons.base != base.identity:
        raise ValueError(
            f"These neurons were selected on {neurons.base}, but the loaded model is {base.identity}. "
            "Connect one MODEL and CLIP to both "
            "SelectConceptNeurons and ContinualTrain."
        )
    if neurons.concept_digest != concept.digest():
        raise ValueError(
            f"These neurons were selected for another concept than {concept.name!r}. Connect one CONCEPT to "
            "both SelectConceptNeurons and "
            "ContinualTrain."
        )


def _check_prior(settings: TrainSettings, class_images: Tensor | None) -> None:
    given = settings.prior == "given class images"
    if given and (class_images is None or not len(class_images)):
        raise ValueError(
            "The prior is 'given class images', but none are connected. Connect an IMAGE batch or choose "
            "another prior."
        )
    if class_images is not None and not given:
        raise ValueError(
            f"Class images are connected, but the prior is {settings.prior!r}. Choose 'given class images' "
            "or unplug them."
        )


def _key(
    base: Base,
    clip: Any,
    concept: Concept,
    neurons: Neurons,
    memory: ConceptMemory | None,
    class_images: Tensor | None,
    settings: TrainSettings,
) -> str:
    digest = hashlib.sha256(f"clip skip {clip.layer_idx}".encode())
    if class_images is not None:
        digest.update(class_images.float().cpu().contiguous().numpy().tobytes())
    return run_key(
        base.identity, concept, neurons.selection.concept_mask.digest(), memory, settings, digest.hexdigest()
    )


def _is_out_of_memory(error: BaseException) -> bool:
    """The host's OOM_EXCEPTION is plain `Exception` where PyTorch has none of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower()
