"""ContinualTrain in the host: check everything, prepare latents and class images,
train, and keep what was learned.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

import comfy.model_management as management
import torch
from torch import Tensor

from ..checkpoint import CheckpointError, state_bytes
from ..concept import Concept
from ..framing import Framing, told
from ..memory import ConceptMemory, LearnedConcept
from ..method import TOKEN, Adaptation, Earlier, ParameterGroup, Plan
from ..priors import PRIORS
from ..prompt_tokens import PLACE, check_tokens
from ..refine import Refining
from ..settings import TrainSettings
from ..thumbnails import jpeg_of
from ..tokens import TokenVectors, initial_vectors
from ..training import ConceptTrainer, StepReport, TrainingData, check_rates
from ..within import start
from . import notices
from .backend import HostBackend, training_mode
from .draw import draw
from .kept import Limits, prune
from .known_models import lasting_digest
from .live import LiveRun, watched
from .model import BaseModel, read_base
from .models_key import models_key
from .paths import work_folder
from .prepare import check_concept
from .progress import Progress
from .runs import Run
from .text import token_tables, word_ids
from .training_data import Sources, training_data
from .training_memory import MemoryUse
from .types import Loaded
from .weights import Weights

# A run that is killed outright loses at most this many steps; Cancel and errors lose none.
_CHECKPOINT_EVERY = 100
_RESULTS = "2"  # how results are kept: the new concept alone


@dataclass(frozen=True)
class Preview:
    """A picture of `prompt`, with `{}` for the concept's token, every `every` steps; no prompt or 0: none."""

    prompt: str = ""
    every: int = 0

    def prompt_of(self, token: str) -> str:
        return self.prompt.replace(PLACE, token)


@dataclass(frozen=True, eq=False)
class Lesson:
    """One concept to be learned on top of a memory: all that decides what comes of it, and how to show it.

    class_images: `(H, W, C)` each, what the user connected; method_settings: `plan.method.Training`; limits:
    of what is kept on disk. refining: when the concept is one of the memory's, to be learned further.
    """

    loaded: Loaded
    concept: Concept
    plan: Plan
    memory: ConceptMemory | None = None
    class_images: Sequence[Tensor] = ()
    settings: TrainSettings = field(default_factory=TrainSettings)
    method_settings: Any = None
    preview: Preview = field(default_factory=Preview)
    limits: Limits = field(default_factory=Limits)
    refining: Refining | None = None
    memory_use: MemoryUse = field(default_factory=MemoryUse)

    @property
    def others(self) -> ConceptMemory | None:
        """The memory without this lesson's concept."""
        return self.memory if self.refining is None else self.refining.others

    @property
    def vectors(self) -> int:
        """How many the concept's token stands for."""
        return self.settings.vectors if self.refining is None else self.refining.concept.vectors

    def with_learned(self, learned: LearnedConcept, base: BaseModel) -> ConceptMemory:
        """The memory with what training has left of the concept."""
        if self.refining is not None:
            return self.refining.result(learned)
        return (self.memory or ConceptMemory(base.identity, base.layout)).with_learned(learned)

    def check(self, base: BaseModel) -> None:
        """ValueError, before any long work, when the parts do not fit each other."""
        check_concept(self.concept, base, self.loaded.model, self.loaded.clip, self.others, self.vectors)
        if not self.plan.base.same_as(base.identity):
            raise ValueError(
                f"These neurons were selected on {self.plan.base}, but the loaded model is {base.identity}"
                f"{base.identity.told_apart(self.plan.base)}. "
                "Connect one MODEL and CLIP to both SelectConceptNeurons and ContinualTrain."
            )
        if self.plan.concept_digest != self.concept.digest():
            raise ValueError(
                f"These neurons were selected for another concept than {self.concept.name!r}. "
                "Connect one CONCEPT to both SelectConceptNeurons and ContinualTrain."
            )
        self.plan.prepared.check(self.others or ConceptMemory(base.identity, base.layout))
        PRIORS[self.settings.prior].check(self.class_images)
        others = {} if self.others is None else self.others.token_vectors()
        check_tokens("The preview prompt", self.preview_prompt, [self.concept.token, *others])

    @property
    def preview_prompt(self) -> str:
        return self.preview.prompt_of(self.concept.token)

    def key(self, base: BaseModel) -> str:
        """sha256 over all that decides the result."""
        of_images = hashlib.sha256()
        for image in self.class_images:
            of_images.update(repr(tuple(image.shape)).encode())
            of_images.update(image.float().cpu().contiguous().numpy().tobytes())
        return lasting_digest(
            _RESULTS,
            models_key(self.loaded, base.identity),
            self.plan.made_from,
            self.concept.digest(),
            "" if self.memory is None else self.memory.digest(),
            str(self.kept_settings()),
            of_images.hexdigest(),
            *(["refined"] if self.refining is not None else []),
            *([repr(self.concept.framings())] if base.family.told_sizes else []),
        )

    def fault(self, found: ConceptMemory, base: BaseModel) -> str | None:
        """What is wrong with a result that should be this lesson's, its concept alone; None for nothing."""
        concept = self.concept
        if not found.base.same_as(base.identity) or found.layout != base.layout:
            return f"it was made on {found.base}"
        if len(found) != 1:
            return f"it holds {len(found)} concepts, expected one"
        learned = found.concepts[0]
        seen = (learned.name, learned.token, learned.class_word, learned.kind, learned.method)
        wanted = (concept.name, concept.token, concept.class_word, concept.kind, self.plan.method.name)
        if seen != wanted:
            return f"it holds {', '.join(seen)}; expected {', '.join(wanted)}"
        if learned.settings != json.loads(json.dumps(self.kept_settings())):
            return "it was learned by other settings"
        if learned.vectors != self.vectors:
            return f"its token stands for {learned.vectors} vectors, expected {self.vectors}"
        return found.fault_of_tokens(base.token_widths)

    def kept_settings(self) -> dict[str, dict[str, Any]]:
        """What a memory keeps of the settings."""
        train = self.settings.as_dict()
        if train["vectors"] == 1:  # files, and the keys of runs, are as they were before there were several
            del train["vectors"]
        kept = {
            "train": train,
            "method": asdict(self.method_settings),
            "select": asdict(self.plan.settings),
        }
        if self.others:  # what it left is not all that it needs
            kept["after"] = {"concepts": len(self.others)}
        if self.refining is not None:
            kept["refined"] = {"from": self.refining.concept.digest()}
        return kept


@dataclass(frozen=True, eq=False)
class Learned:
    """The new memory and what to tell about how it came about.

    from_disk: nothing was trained, an earlier run of the same had been finished.
    """

    memory: ConceptMemory
    notes: list[str]
    from_disk: bool = False


def learn(lesson: Lesson) -> Learned:
    """Learn one concept on top of a memory.
    The loaded MODEL, CLIP and VAE are left exactly as they were, whatever happens.

    Raises:
        ValueError: parts of the lesson do not fit each other.
        RuntimeError: memory ran out, or the loss became NaN; what was learned until then is kept.
    """
    base = read_base(lesson.loaded.model, lesson.loaded.clip)
    lesson.check(base)
    run = Run(work_folder("runs"), lesson.key(base))
    with watched(lesson.concept, lesson.settings.steps) as live:
        if (finished := run.result(lambda found: lesson.fault(found, base))) is not None:
            live.kept_before(finished)
            return _from_disk(lesson, base, finished)
        with Progress(lesson.settings.steps, live) as progress:
            learned = _learned_now(LearningRun(lesson, base, run, progress, live))
    if told := prune(lesson.limits, [run.result_file]):
        learned.notes.append(told)
    return learned


def _from_disk(lesson: Lesson, base: BaseModel, finished: LearnedConcept) -> Learned:
    """What an earlier run of the same has left."""
    steps, done = lesson.settings.steps, max((len(v) for v in finished.losses.values()), default=0)
    short = f", after step {done} of {steps}" if done < steps else ""
    told = (
        f"This run was finished before{short}; its result was taken from disk. Change the seed to train anew."
    )
    return Learned(lesson.with_learned(finished, base), [told], from_disk=True)


def _learned_now(learning: LearningRun) -> Learned:
    """RuntimeError, with what to do, where memory ran out."""
    try:
        return learning.result()
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        management.unload_all_models()  # as the host does, which does not know this error for what it was
        raise RuntimeError(
            f"Out of memory while training at batch size {learning.lesson.settings.batch_size} ({error}). "
            "Lower the concept's resolution or the batch size (gradient accumulation makes up for it), "
            f"use prior 'none' or 'image-free', or close other programs. {learning.run.told_kept()}"
        ) from error


class LearningRun:
    """A lesson while it is being learned."""

    def __init__(self, lesson: Lesson, base: BaseModel, run: Run, progress: Progress, live: LiveRun) -> None:
        self.lesson, self.base, self.run, self.progress, self.live = lesson, base, run, progress, live
        self.known = lesson.others or ConceptMemory(base.identity, base.layout)
        self.earlier: Earlier = lesson.refining or self.known

    def result(self) -> Learned:
        """Prepare, train, and keep the memory on disk."""
        lesson, notes, vectors = self.lesson, self.run.notes, self._first_vectors()
        with training_mode():
            loaded, plan, known = lesson.loaded, lesson.plan, self.known.token_vectors()
            backend = HostBackend(loaded.model, loaded.clip, lesson.concept.token, vectors, known)
            adaptation = start(
                plan.method, plan.prepared, self.earlier, lesson.method_settings, backend.device
            )
        self._check(adaptation, vectors)  # before pictures are encoded, and maybe hundreds drawn
        learned_before = lesson.memory or self.known
        sources = Sources(loaded, self.base, learned_before, lesson.class_images)
        data = training_data(sources, lesson.concept, lesson.settings, self.progress, notes)
        notes += [*self._of_patches(), *self._of_sizes()]
        with training_mode():
            trainer = self._trainer(backend, data, adaptation, vectors)
            backend.memory.use = lesson.memory_use
            backend.memory.to_come = trainer.bytes_to_come
            try:
                trainer.run(lambda report: self._on_step(report, trainer, backend), self.live.stop_asked)
            except BaseException:  # Cancel is a BaseException on newer hosts; nothing is swallowed
                if trainer.step:
                    self.run.save_checkpoint(trainer.state(), trainer.step)
                raise
        if trainer.step < lesson.settings.steps:
            notes.append(f"Stopped after step {trainer.step} of {lesson.settings.steps}, as you asked.")
        notes += backend.memory.notes
        learned = self._learned(trainer, adaptation)
        self.run.finish(self.known.with_learned(learned))
        return Learned(lesson.with_learned(learned, self.base), notes)

    def _first_vectors(self) -> TokenVectors:
        """The token as it was learned, or as its class word."""
        loaded, refining = self.lesson.loaded, self.lesson.refining
        if refining is not None:
            return dict(refining.concept.token_vectors)
        tables = {n: t.detach().float().cpu() for n, t in token_tables(loaded.clip).items()}
        ids, settings = word_ids(loaded.clip, self.lesson.concept.class_word), self.lesson.settings
        return initial_vectors(tables, ids, settings.vectors, settings.seed)

    def _trainer(
        self, backend: HostBackend, data: TrainingData, adaptation: Adaptation, vectors: TokenVectors
    ) -> ConceptTrainer:
        """One that goes on where an earlier run of the same stopped, if there was one."""
        settings = self.lesson.settings
        if (state := self.run.checkpoint()) is not None:
            try:
                trainer = ConceptTrainer(backend, data, adaptation, vectors, settings, resume=state)
            except CheckpointError as error:
                self.run.refuse_checkpoint(error)
            else:
                self.run.kept_step = trainer.step
                self.live.resumed(trainer.step, trainer.losses)
                self.run.notes.append(
                    f"Resumed after step {trainer.step} of {settings.steps}, where an earlier run of this "
                    "graph stopped."
                )
                return trainer
        return ConceptTrainer(backend, data, adaptation, vectors, settings)

    def _of_patches(self) -> list[str]:
        loaded = self.lesson.loaded
        if not Weights(loaded.model).patched() and not Weights(loaded.clip.patcher).patched():
            return []
        return [
            "MODEL or CLIP is a merge or carries LoRAs: the concept was learned on what they make of it, so "
            "draw with it on the same, or on a checkpoint that it was saved as."
        ]

    def _of_sizes(self) -> list[str]:
        if not self.base.family.told_sizes:
            return []
        sizes = [(image.pixels.shape[0], image.pixels.shape[1]) for image in self.lesson.concept.images]
        framings, family = self.lesson.concept.framings(), self.base.family
        notes = [told([(f or Framing(size), size) for f, size in zip(framings, sizes, strict=True)])]
        side = round(max(height * width for height, width in sizes) ** 0.5)
        if side < family.least_side:
            small = (
                f"{family.title} draws at 1024 px and falls apart below {family.least_side}, and these "
                f"pictures have about {side}: set resolution of Load Concept Images to 1024."
            )
            notices.tell(small)
            notes.append(small)
        return notes

    def _check(self, adaptation: Adaptation, vectors: TokenVectors) -> None:
        """ValueError where nothing would be learned, or where a checkpoint and a result beside it, whose new
        part is no larger, would find no room.
        """
        token = ParameterGroup(TOKEN, "token_lr", self.lesson.settings.token_lr, list(vectors.values()))
        groups = [*adaptation.parameter_groups(), token]
        check_rates(groups)
        moving = sum(p.numel() for group in groups for p in group.parameters)
        earlier = sum(
            t.numel() * t.element_size() for c in self.known.concepts for t in c.change.tensors().values()
        )
        self.run.check_space(2 * state_bytes(adaptation.state_dict(), moving) + earlier)

    def _on_step(self, report: StepReport, trainer: ConceptTrainer, backend: HostBackend) -> None:
        preview, last = self.lesson.preview, report.step == report.steps
        picture = None
        if preview.prompt and preview.every and (report.step % preview.every == 0 or last):
            with torch.no_grad():
                trainer.adaptation.before_forward()
            height, width = (side * self.base.family.latent_factor for side in trainer.data.images[0].size)
            drawing = Loaded(backend.model, backend.clip, self.lesson.loaded.vae)
            with backend.suspended():
                seed = self.lesson.settings.seed % 2**32
                picture = draw(drawing, [self.lesson.preview_prompt], (height, width), [seed])
        if report.step % _CHECKPOINT_EVERY == 0 and not last:
            self.run.save_checkpoint(trainer.state(), report.step)
        self.progress.step(report, picture)  # raises when the user cancelled

    def _learned(self, trainer: ConceptTrainer, adaptation: Adaptation) -> LearnedConcept:
        concept, state = self.lesson.concept, trainer.state()
        return LearnedConcept(
            name=concept.name,
            token=concept.token,
            class_word=concept.class_word,
            kind=concept.kind,
            captions=concept.taught().captions,
            method=self.lesson.plan.method.name,
            change=adaptation.learned(),
            token_vectors=state.token_vectors,
            settings=self.lesson.kept_settings(),
            losses={name: torch.tensor(values) for name, values in state.losses.items()},
            learned_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            thumbnail=jpeg_of(concept.images[0].pixels),
        )


def _is_out_of_memory(error: BaseException) -> bool:
    """A GPU's allocator has an error of its own; the CPU's has words, by the system; the host's
    OOM_EXCEPTION is plain `Exception` where PyTorch has none.
    """
    words = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
    own = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return own or (isinstance(error, RuntimeError | OSError) and any(w in str(error).lower() for w in words))
