"""A concept's pictures as training takes them: latents, and pictures of what is kept for a prior that needs
some.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..captions import template_captions
from ..concept import Concept
from ..memory import ConceptMemory
from ..priors import KeptPool, Size
from ..settings import TrainSettings
from ..training import TrainingData
from .draw import without_guidance
from .drawn_pictures import drawn_pictures
from .known_models import lasting_digest
from .latents import encode_concept, encode_fitted, encode_pixels
from .model import BaseModel
from .models_key import models_key
from .paths import work_folder
from .personalize import personalize
from .progress import Progress
from .types import Loaded


@dataclass(frozen=True, eq=False)
class Sources:
    """What pictures are made with. memory: what was learned; connected: class images `(H, W, C)` each."""

    loaded: Loaded
    base: BaseModel
    memory: ConceptMemory
    connected: Sequence[Tensor]


def training_data(
    sources: Sources, concept: Concept, settings: TrainSettings, progress: Progress, notes: list[str]
) -> TrainingData:
    """Encode the pictures, and whatever the prior asks for; shows progress, and may raise to stop.

    notes: gets what there is to tell.
    """
    images = encode_concept(sources.loaded, concept, progress.phase)
    prior, sizes = settings.chosen_prior(), sorted({image.size for image in images})
    pictures = _Pictures(sources, concept, settings.class_image_count, sizes, progress, notes)
    before: Mapping[str, Tensor] = {}
    if prior.asks_before:
        before = {name: c for name, c in sources.memory.changes().items() if bool(c.any())}
    return TrainingData(images, prior.prepare(pictures), before)


@dataclass(frozen=True, eq=False)
class _Pictures:
    """Given or drawn, in the sizes of the concept's own (`priors.PictureSource`).

    count: of those that are drawn, at least one of each prompt and size.
    """

    sources: Sources
    concept: Concept
    count: int
    sizes: Sequence[Size]
    progress: Progress
    notes: list[str]

    @property
    def class_prompt(self) -> str:
        concept = self.concept
        return concept.class_caption(template_captions(concept.kind, concept.token)[0])

    def given(self) -> dict[Size, KeptPool]:
        connected, sizes = self.sources.connected, set(self.sizes)
        return encode_fitted(self.sources.loaded, connected, self.class_prompt, sizes, self.progress.phase)

    def drawn(self) -> dict[Size, KeptPool]:
        """By the untouched model, in turn for every size."""
        loaded, base = self.sources.loaded, self.sources.base
        return self._drawn(loaded, models_key(loaded, base.identity), [[self.class_prompt]])

    def replayed(self) -> dict[Size, KeptPool]:
        """As the memory has them: the class and each earlier concept in turn, by their captions in turn."""
        loaded, memory = self.sources.loaded, self.sources.memory
        key = models_key(loaded, self.sources.base.identity)
        if not len(memory):
            return self._drawn(loaded, key, [[self.class_prompt]])
        drawing = personalize(loaded.model, loaded.clip, memory)
        others = [list(one.captions) for one in memory.taught() if one.token != self.concept.token]
        return self._drawn(
            replace(loaded, model=drawing.model, clip=drawing.clip),
            lasting_digest(key, memory.digest()),
            [[self.class_prompt], *others],
        )

    def _drawn(self, loaded: Loaded, made_from: str, subjects: list[list[str]]) -> dict[Size, KeptPool]:
        """subjects: the prompts of each."""
        factor, rounds = self.sources.base.family.latent_factor, len(subjects) * len(self.sizes)
        wanted: list[tuple[str, Size]] = []
        for number in range(max(self.count, rounds)):
            turn, subject = divmod(number, len(subjects))
            prompts, (height, width) = subjects[subject], self.sizes[turn % len(self.sizes)]
            prompt = prompts[turn // len(self.sizes) % len(prompts)]
            wanted.append((prompt, (height * factor, width * factor)))
        latents: dict[Size, list[Tensor]] = {size: [] for size in self.sizes}
        described: dict[Size, list[str]] = {size: [] for size in self.sizes}
        pictures = drawn_pictures(
            work_folder("class_images"),
            made_from,
            replace(loaded, model=without_guidance(loaded.model)),
            wanted,
            lambda done, picture: self.progress.phase(done, len(wanted), picture),
            self.notes,
        )
        for (prompt, _), picture in zip(wanted, pictures, strict=True):
            encoded = encode_pixels(self.sources.loaded, picture)[0]
            size = encoded.shape[1], encoded.shape[2]
            latents[size].append(encoded)
            described[size].append(prompt)
        return {
            size: KeptPool(torch.stack(found), [None] * len(found), described[size])
            for size, found in latents.items()
        }
