"""Erasing by training, in the host: draw what is needed, look, train, and go on where it was stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import CheckpointError, state_bytes
from ..concept import ERASURE
from ..erasures.adaptation import ErasingAdaptation, Guard
from ..erasures.by_training import KEPT, NOTHING, Looked, Retained, TrainedErasure, look
from ..erasures.scenes import Scene, of_kept
from ..erasures.wording import ToErase, lines_of
from ..memory import ConceptMemory, LearnedConcept
from ..method import Change
from ..objective import Objective
from ..priors import NoPrior
from ..settings import TrainSettings
from ..training import ConceptTrainer, LatentImage, StepReport, TrainingData
from ..weight_scopes import weights_in
from .apply import apply_changes
from .backend import HostBackend, training_mode
from .draw import Sampling, draw_latents
from .known_models import lasting_digest
from .model import BaseModel, weights_of
from .models_key import latents_key
from .paths import work_folder
from .progress import Progress
from .runs import Run
from .text import with_tokens
from .types import Clip, Model

_CHECKPOINT_EVERY = 100
_AT_ONCE = 4  # pictures drawn
_HOW = Sampling(cfg=3.0)  # ESD's guidance; more draws pictures that are less like each other's noise
_RESULTS = "1"


@dataclass(frozen=True, eq=False)
class ToTrain:
    """All that decides what comes of it. kept: the sum of the second moments of what stays, float64."""

    model: Model
    clip: Clip
    base: BaseModel
    earlier: ConceptMemory
    what: ToErase
    erasure: TrainedErasure
    settings: Any
    kept: Tensor
    gram: Tensor

    def key(self) -> str:
        """sha256 over it."""
        told = repr((self.what.words, self.what.instead, sorted(asdict(self.settings).items())))
        models = latents_key(self.model, self.clip, self.base.identity)
        return lasting_digest("erasure", _RESULTS, self.erasure.name, models, self.earlier.digest(), told)

    def fault(self, found: ConceptMemory) -> str | None:
        """Why a memory is not what came of it before; None where it is."""
        if not found.base.same_as(self.base.identity):
            return "it is of another model"
        if [(c.name, c.kind, c.method) for c in found.concepts] != [
            (self.what.name, ERASURE, self.erasure.name)
        ]:
            return "it holds something else"
        return None


@dataclass(frozen=True, eq=False)
class Trained:
    """What came of it; notes: for the user."""

    change: Change
    losses: dict[str, Tensor]
    notes: list[str]


def erase_by_training(todo: ToTrain, progress: Progress) -> Trained:
    """Train an erasure on top of a memory. MODEL and CLIP are left as they were, whatever happens; Cancel
    keeps what was done, to go on with, and the result is kept for the same erasure again.
    """
    run = Run(work_folder("runs"), todo.key())
    if (before := run.result(todo.fault)) is not None:
        told = "it was trained before, and its result was taken from disk; change the seed to train anew"
        return Trained(before.change, before.losses, [*run.notes, told])
    trained = _Training(todo, run, progress).result()
    concept = as_learned(todo.what, todo.erasure.name, todo.settings, trained.change, trained.losses)
    run.finish(ConceptMemory(todo.base.identity, todo.base.layout, (concept,)))
    return trained


def as_learned(
    what: ToErase, by: str, settings: Any, change: Change, losses: Mapping[str, Tensor]
) -> LearnedConcept:
    """What was erased, as a memory holds it. by: the way's name."""
    return LearnedConcept(
        name=what.name,
        token="",
        class_word="",
        kind=ERASURE,
        captions=what.captions(),
        method=by,
        change=change,
        token_vectors={},
        settings={"erase": {"words": list(what.words), "instead": list(what.instead), **asdict(settings)}},
        losses=dict(losses),
        learned_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


class _Training:
    """One erasure while it is trained."""

    def __init__(self, todo: ToTrain, run: Run, progress: Progress) -> None:
        self.todo, self.run, self.progress = todo, run, progress
        earlier = todo.earlier
        # What was learned is part of what may not change: the model is trained as the memory draws with it.
        self.model = apply_changes(todo.model, earlier, 1.0) if len(earlier) else todo.model
        self.clip = with_tokens(todo.clip, earlier.token_vectors())

    def result(self) -> Trained:
        todo, settings, run = self.todo, self.todo.settings, self.run
        scenes = todo.erasure.scenes(todo.what, settings)
        keep = lines_of(settings.keep)
        wants_kept = settings.retain > 0 or todo.erasure.looks_at == KEPT
        kept = of_kept(todo.what, keep, todo.earlier.taught(), settings.pictures) if wants_kept else []
        drawn = self._drawn([*scenes, *kept])
        images, retained = drawn[: len(scenes)], drawn[len(scenes) :]
        with training_mode():
            backend = HostBackend(self.model, todo.clip, "", {}, todo.earlier.token_vectors())
            adaptation = self._adaptation(backend, images, retained)
            trainer = self._trainer(backend, adaptation, images, retained)
            moving = sum(p.numel() for group in trainer.groups for p in group.parameters)
            backend.memory.to_come = trainer.bytes_to_come
            run.check_space(2 * state_bytes(adaptation.state_dict(), moving))
            try:
                trainer.run(lambda report: self._on_step(report, trainer))
            except BaseException:  # Cancel is a BaseException on newer hosts; nothing is swallowed
                if trainer.step:
                    run.save_checkpoint(trainer.state(), trainer.step)
                raise
            change = adaptation.learned()
        run.notes += backend.memory.notes
        losses = {name: torch.tensor(values) for name, values in trainer.losses.items()}
        return Trained(change, losses, run.notes)

    def _drawn(self, scenes: Sequence[Scene]) -> tuple[LatentImage, ...]:
        side, seed = self.todo.settings.resolution, self.todo.settings.seed
        found: list[LatentImage] = []
        for first in range(0, len(scenes), _AT_ONCE):
            some = scenes[first : first + _AT_ONCE]
            seeds = [(seed + first + i) % 2**63 for i in range(len(some))]
            latents = draw_latents(self.model, self.clip, [s.prompt for s in some], (side, side), seeds, _HOW)
            found += [LatentImage(x, s.captions, s.others) for x, s in zip(latents, some, strict=True)]
            self.progress.phase(len(found), len(scenes))
        return tuple(found)

    def _adaptation(
        self, backend: HostBackend, images: tuple[LatentImage, ...], retained: tuple[LatentImage, ...]
    ) -> ErasingAdaptation:
        todo, settings = self.todo, self.todo.settings
        layout = weights_in(todo.base.shapes, settings.weights)
        looked: Looked | None = None
        if todo.erasure.looks_at != NOTHING:
            of = retained if todo.erasure.looks_at == KEPT else images
            looked = look(
                backend,
                layout,
                of,
                settings.look_steps,
                settings.batch_size,
                settings.seed,
                self.progress.phase,
            )
        weights: Mapping[str, Tensor] = weights_of(self.model, layout)
        return todo.erasure.start(layout, weights, looked, self._guard(backend), settings, backend.device)

    def _guard(self, backend: HostBackend) -> Guard | None:
        todo = self.todo
        if not todo.settings.guard:
            return None
        moment = todo.kept.to(backend.device, torch.float32, copy=True)
        return Guard(todo.settings.guard, moment, float((todo.gram * todo.kept).sum()), todo.base.layout)

    def _trainer(
        self,
        backend: HostBackend,
        adaptation: ErasingAdaptation,
        images: tuple[LatentImage, ...],
        retained: tuple[LatentImage, ...],
    ) -> ConceptTrainer:
        """One that goes on where an earlier run of the same stopped, if there was one."""
        s = self.todo.settings
        settings = TrainSettings(steps=s.steps, batch_size=s.batch_size, seed=s.seed, prior_weight=s.retain)
        prior = Retained(retained) if s.retain > 0 else NoPrior()
        objective = Objective(self.todo.erasure.goal(s), prior)
        data = TrainingData(images)

        def trainer(resume: Any = None) -> ConceptTrainer:
            return ConceptTrainer(backend, data, adaptation, {}, settings, resume, objective)

        if (state := self.run.checkpoint()) is None:
            return trainer()
        try:
            resumed = trainer(state)
        except CheckpointError as error:
            self.run.refuse_checkpoint(error)
            return trainer()
        self.run.kept_step = resumed.step
        self.run.notes.append(f"went on after step {resumed.step} of {s.steps}, where it was stopped")
        return resumed

    def _on_step(self, report: StepReport, trainer: ConceptTrainer) -> None:
        if report.step % _CHECKPOINT_EVERY == 0 and report.step < report.steps:
            self.run.save_checkpoint(trainer.state(), report.step)
        self.progress.step(report, None)  # raises when the user cancelled
