"""Learning a concept of a memory further, by the method and settings that it was learned by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ..concept import Concept
from ..joining import JOININGS
from ..memory import ConceptMemory
from ..methods import METHODS
from ..refine import to_refine
from ..settings import TrainSettings, described, from_kept
from ..space.change import OutOfSpace
from .kept import Limits
from .learn import Learned, Lesson, Preview, learn
from .prepare import prepare
from .progress import Progress
from .training_memory import MemoryUse
from .types import Loaded


@dataclass(frozen=True)
class Further:
    """What is chosen anew; everything else is as when the concept was learned.

    rate: a factor on the learning rates.
    """

    steps: int
    seed: int
    rate: float = 1.0
    preview: Preview = field(default_factory=Preview)
    limits: Limits = field(default_factory=Limits)
    memory_use: MemoryUse = field(default_factory=MemoryUse)


def refine(
    loaded: Loaded,
    concept: Concept,
    memory: ConceptMemory,
    further: Further,
    class_images: Sequence[Tensor] = (),
) -> Learned:
    """Learn a concept of the memory further, from these pictures. Others are kept out of its way as if it
    were new.

    Raises:
        ValueError: it is not in the memory, or the models, the memory and the pictures do not fit.
        RuntimeError: as from `learn`.
    """
    refining = to_refine(memory, concept)
    learned = refining.concept
    if learned.method in JOININGS:
        raise ValueError(
            f"{learned.token} was joined with others by {learned.method}: what is there of it is a share "
            "that was made with them in view. Learn it further in the memory that it came from, and join "
            "again."
        )
    if learned.method == OutOfSpace.name:
        raise ValueError(
            f"{learned.token} was made out of a space of concepts, not learned from pictures, so that there "
            "is nothing to go on with. Learn these pictures as a new concept, or edit it in its space."
        )
    method = METHODS[learned.method]
    kept = learned.settings
    try:
        train = from_kept(TrainSettings, kept.get("train"))
        training = from_kept(method.Training, kept.get("method"))
        selection = from_kept(method.Selection, kept.get("select"))
    except ValueError as error:
        raise ValueError(
            f"The memory does not tell how {learned.token} was learned: {error} Its file is damaged or was "
            "changed by hand; take another copy of it."
        ) from error
    train = _faster(replace(train, steps=further.steps, seed=further.seed), further.rate)
    training = _faster(training, further.rate)
    if "token_first" in described(method.Training):  # it has been learned: there is nothing to wait for
        training = replace(training, token_first=0.0)
    with Progress(1) as progress:
        plan = prepare(loaded.model, loaded.clip, concept, refining.others, method, selection, progress.phase)
    lesson = Lesson(
        loaded,
        concept,
        plan,
        memory,
        tuple(class_images),
        train,
        training,
        further.preview,
        further.limits,
        refining,
        further.memory_use,
    )
    result = learn(lesson)
    return replace(result, notes=[*plan.notes, *result.notes])


def _faster(settings: Any, rate: float) -> Any:
    """The same with its learning rates times a factor, as far as their ranges go."""
    rates = {}
    for name, (_, what) in described(type(settings)).items():
        if name.endswith("_lr"):
            rates[name] = min(getattr(settings, name) * rate, what.high or 1.0)
    return replace(settings, **rates)
