"""What erasures have in common that train, in the loop that learns concepts.

The paper's picture sets are not needed: latents of the words, and of what is kept, are drawn by the model
itself, once, before it is trained (`Drawn`), and noised as pictures are. What is kept is in the loss three
times over: pictures of it have to be predicted as before (`Retained`), its keys and values are held where
they are (`adaptation.Guard`), and each method has a restraint of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..backend import DiffusionBackend
from ..methods.sensitivity import Sensitivity
from ..objective import Goal, prediction_error
from ..priors import NoisedBatch, NoPrior, PriorBatch, Teacher
from ..projections import ProjectionLayout
from ..settings import check, choice, number, whole
from ..text_features import TextFeatures
from ..training import LatentImage
from ..weight_scopes import KEYS_AND_VALUES, SCOPES
from .adaptation import ErasingAdaptation, Guard
from .kept import Kept
from .scenes import Scene
from .wording import ToErase

WORDS, KEPT, NOTHING = "words", "kept", ""

_SIDE = 64  # pixels; pictures are multiples of it


@dataclass(frozen=True)
class TrainingSettings(Kept):
    """How long, how fast, on what."""

    weights: str = choice(
        KEYS_AND_VALUES,
        SCOPES,
        "Which weights of the U-Net may move. Keys and values are what reads the words; more of it knows the "
        "picture too, and more goes with it.",
    )
    steps: int = whole(200, 1, 100_000, "Optimizer steps.")
    weight_lr: float = number(1e-5, 0, 1, "Learning rate of the weights.", step=1e-6, digits=9)
    batch_size: int = whole(2, 1, 64, "Pictures of the words per step, and as many of what is kept.")
    pictures: int = whole(
        32,
        1,
        1000,
        "How many pictures the model draws before, of the words and of what is kept, as many each.",
    )
    resolution: int = whole(
        512, 64, 2048, "Side of these pictures: 512 for SD 1.5, 768 for SD 2.x, 1024 for SDXL."
    )
    retain: float = number(
        1.0,
        0,
        100,
        "How much it weighs that pictures of what is kept are predicted as before. Half of the work of a "
        "step; 0 leaves it out.",
        step=0.1,
    )
    guard: float = number(
        10.0,
        0,
        1e9,
        "How hard keys and values of what is kept are held where they are. 0 leaves it out, as the papers "
        "do.",
        step=1.0,
        digits=9,
    )
    seed: int = whole(0, 0, 2**64 - 1, "Of the pictures, and of the noise of the training.", rare=True)

    def __post_init__(self) -> None:
        check(self)
        if self.resolution % _SIDE:
            raise ValueError(f"resolution is {self.resolution}, expected a multiple of {_SIDE}.")


@dataclass(frozen=True, eq=False)
class Looked:
    """What a loss asks of each entry before anything moves, float32 `(out, text_dim)` by name.

    sums: of dL/dW over the batches; squares: the mean of its square.
    """

    sums: Mapping[str, Tensor]
    squares: Mapping[str, Tensor]


class TrainedErasure(Protocol):
    """A way to erase that trains.

    looks_at: which pictures' gradients it asks for beforehand: WORDS, KEPT or NOTHING.
    """

    name: str
    Settings: type[Any]
    looks_at: str

    def scenes(self, what: ToErase, settings: Any) -> list[Scene]:
        """The pictures that it learns from."""
        ...

    def goal(self, settings: Any) -> Goal:
        """What is to be predicted where a prompt names the words; batches have beside each such prompt, in
        `class_captions`, what it is led to.
        """
        ...

    def start(
        self,
        layout: ProjectionLayout,
        weights: Mapping[str, Tensor],
        looked: Looked | None,
        guard: Guard | None,
        settings: Any,
        device: torch.device,
    ) -> ErasingAdaptation:
        """Begin, on these weights `(out, text_dim)` as they are."""
        ...


@dataclass(frozen=True, eq=False)
class Retained(NoPrior):
    """Pictures of what is kept: the model's prediction for them has to stay what it was.

    The papers predict the noise of real or drawn pictures. The model's own prediction is the same in the
    mean, and a few pictures of it teach nothing else than what is there already.
    """

    images: tuple[LatentImage, ...]

    name = "retained"
    loss = "retain"

    def batch(self, batch: NoisedBatch, teacher: Teacher) -> PriorBatch:
        images = [self.images[teacher.pick(len(self.images))] for _ in batch.z0]
        latents = torch.stack([image.latents for image in images]).to(batch.z0.device)
        z_t = teacher.levels.add_noise(latents, batch.noise, batch.t)
        text = teacher.frozen_text([image.captions[0] for image in images])
        framings = [image.framing for image in images]
        target = teacher.untrained_prediction(z_t, batch.t, text, framings)
        return PriorBatch(z_t, target, text, framings)


def look(
    backend: DiffusionBackend,
    layout: ProjectionLayout,
    images: tuple[LatentImage, ...],
    steps: int,
    batch_size: int,
    seed: int,
    on_step: Callable[[int, int], None],
) -> Looked:
    """The gradients of the loss by which a model learns these pictures, under their own captions.

    All are of one size. `on_step(done, steps)` may raise to stop.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    found = Sensitivity(layout, False, backend.device)
    squares = {name: torch.zeros_like(total) for name, total in found.sums.items()}
    texts: dict[str, TextFeatures] = {}

    def pick(below: int) -> int:
        return int(torch.randint(below, (1,), generator=generator))

    def watched(name: str) -> Callable[[Tensor], Tensor]:
        return lambda weight: found.watched(name, weight)

    with backend.weights_patched({name: watched(name) for name in layout.names}):
        for step in range(steps):
            found.begin_step()
            batch = [images[pick(len(images))] for _ in range(batch_size)]
            prompts = [image.captions[pick(len(image.captions))] for image in batch]
            for prompt in prompts:
                if prompt not in texts:
                    with torch.no_grad():
                        texts[prompt] = backend.encode([prompt], None).detached()
            z0 = torch.stack([image.latents for image in batch]).to(backend.device)
            noise = torch.randn(z0.shape, generator=generator).to(backend.device)
            t = torch.randint(len(backend.levels), (len(z0),), generator=generator).to(backend.device)
            z_t = backend.levels.add_noise(z0, noise, t)
            text = TextFeatures.concatenated([texts[p] for p in prompts])
            prediction = backend.predict(z_t, t, text, [image.framing for image in batch])
            prediction_error(prediction, backend.levels.target(z0, noise, t)).mean().backward()
            for name, gradient in found.end_step().items():
                squares[name] += gradient.square() / steps
            on_step(step + 1, steps)
    return Looked(found.sums, squares)
