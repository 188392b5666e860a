"""The pack's own trainer on random latents, by any method, after any number of earlier concepts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cns_core.host.backend import HostBackend
from cns_core.host.model import model_family
from cns_core.laid import Laid
from cns_core.method import Adaptation, Change, Earlier, Prepared, Taught
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
from cns_core.tokens import TokenVectors
from cns_core.training import ConceptTrainer, LatentImage, TrainingData

from .memory import give_back_what_is_free
from .models import HostModel, random_mask
from .random_memories import some_memory

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


@dataclass(frozen=True)
class Task:
    """What every loop trains on."""

    loaded: HostModel
    latents: Tensor  # (n, 4, h, w)
    batch: int
    steps: int


def trainer_for(
    task: Task, backend: HostBackend, vectors: TokenVectors, method: str, prior: str, earlier: int = 0
) -> ConceptTrainer:
    """As `ContinualTrain` makes it for a concept that comes after so many others."""
    layout = model_family(backend.model).projections(
        {name: tuple(p.shape) for name, p in backend.model.model.diffusion_model.named_parameters()}
    )
    chosen, along = METHODS[method], method == DIRECTIONS
    before: Earlier = some_memory(task.loaded, earlier, method) if along else SomeNeurons(layout, earlier)
    adaptation = chosen.start(_prepared(method, layout), before, chosen.Training(), backend.device)
    if along:  # as they are when the token has had its share of the steps
        adaptation.load_state_dict(_found(adaptation, layout.shapes[0][1]))
    return random_trainer(task, backend, adaptation, vectors, prior)


def _found(adaptation: Adaptation, width: int) -> dict[str, Tensor]:
    """The state of directions that have been found."""
    answers = adaptation.state_dict()["answers"]
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(width, answers.shape[1], generator=generator, dtype=torch.float64)
    gains = torch.linspace(100, 3, answers.shape[1], dtype=torch.float64)
    return {"answers": answers, "vectors": vectors / width**0.5, "gains": gains}


def random_trainer(
    task: Task, backend: HostBackend, adaptation: Adaptation, vectors: TokenVectors, prior: str
) -> ConceptTrainer:
    """One of an adaptation on the task's latents."""
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


class SomeNeurons:
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

    def laid(self) -> dict[str, Laid]:
        return {
            name: replace(Laid.nothing(*self.layout.shape(name)), dense=change)
            for name, change in self.changes().items()
        }

    def taught(self) -> tuple[Taught, ...]:
        return ()

    def left(self) -> dict[str, Change]:
        return {}

    def moved(self, name: str) -> Tensor:
        return self._moved.dense(name)
