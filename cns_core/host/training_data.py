"""A concept's pictures as training takes them: latents, and class images for a prior that needs some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..captions import template_captions
from ..concept import Concept
from ..priors import ClassPool
from ..settings import TrainSettings
from ..training import TrainingData
from .class_images import drawn_class_images
from .draw import without_guidance
from .latents import encode_concept, encode_fitted, encode_pixels
from .model import BaseModel
from .models_key import models_key
from .paths import work_folder
from .progress import Progress
from .types import Loaded


def training_data(
    loaded: Loaded,
    base: BaseModel,
    concept: Concept,
    settings: TrainSettings,
    class_images: Sequence[Tensor],
    progress: Progress,
    notes: list[str],
) -> TrainingData:
    """Encode the pictures, and whatever the prior asks for; shows progress, and may raise to stop.

    class_images: `(H, W, C)` each, what the user connected; notes: gets what there is to tell.
    """
    images = encode_concept(loaded, concept, progress.phase)
    prompt = concept.class_caption(template_captions(concept.kind, concept.token)[0])
    sizes = {image.size for image in images}
    pictures = _ClassImages(loaded, base, settings, class_images, sizes, prompt, progress, notes)
    return TrainingData(images, prompt, settings.chosen_prior().prepare(pictures))


@dataclass(frozen=True, eq=False)
class _ClassImages:
    """Given or drawn, in the sizes of the concept's own (`priors.ClassPictures`)."""

    loaded: Loaded
    base: BaseModel
    settings: TrainSettings
    connected: Sequence[Tensor]
    sizes: set[tuple[int, int]]
    prompt: str
    progress: Progress
    notes: list[str]

    def given(self) -> dict[tuple[int, int], ClassPool]:
        return encode_fitted(self.loaded, self.connected, self.sizes, self.progress.phase)

    def drawn(self) -> dict[tuple[int, int], ClassPool]:
        """By the untouched model, in turn for every size."""
        sizes, factor = sorted(self.sizes), self.base.family.latent_factor
        count = max(self.settings.class_image_count, len(sizes))
        wanted = [(h * factor, w * factor) for h, w in (sizes[i % len(sizes)] for i in range(count))]
        gathered: dict[tuple[int, int], list[Tensor]] = {size: [] for size in sizes}
        for image in drawn_class_images(
            work_folder("class_images"),
            models_key(self.loaded, self.base.identity),
            replace(self.loaded, model=without_guidance(self.loaded.model)),
            self.prompt,
            wanted,
            lambda done, picture: self.progress.phase(done, count, picture),
            self.notes,
        ):
            latents = encode_pixels(self.loaded, image)[0]
            gathered[latents.shape[1], latents.shape[2]].append(latents)
        return {size: ClassPool(torch.stack(x), [None] * len(x)) for size, x in gathered.items()}
