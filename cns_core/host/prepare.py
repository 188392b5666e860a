"""Before training: what of the model may move, found by the method from captions and clean weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import comfy.model_management as management
import torch
from torch import Tensor

from ..concept import Concept, check_free
from ..memory import ConceptMemory
from ..method import Method, Plan
from ..projections import ProjectionLayout
from ..weight_scopes import weights_in
from .known_models import computes_as, lasting_digest
from .model import BaseModel, check_trainable, read_base, weights_of
from .prompt_reader import PromptReader
from .text import check_class_word, check_length, known_tokens, with_tokens
from .types import Clip, Model, OnProgress


def prepare(
    model: Model,
    clip: Clip,
    concept: Concept,
    memory: ConceptMemory | None,
    method: Method,
    settings: Any,
    on_progress: OnProgress,
) -> Plan:
    """Everything that can be checked is checked before any long work;
    `on_progress(done, total)` may raise to stop.

    Raises:
        ValueError: the models do not fit each other, the memory, the concept or the settings.
    """
    base = read_base(model, clip)
    check_concept(concept, base, model, clip, memory)
    material = HostMaterial(base, model, clip, concept, memory, on_progress)
    prepared = method.prepare(material, settings)
    on_progress(1, 1)
    made_from = lasting_digest(
        computes_as(base.identity, clip),
        concept.digest(),
        "" if memory is None else memory.digest(),
        method.name,
        str(asdict(settings)),
    )
    notes = tuple(material.notes)
    return Plan(
        method, settings, prepared, base.identity, concept.digest(), made_from, base.parameters, notes
    )


def check_concept(
    concept: Concept,
    base: BaseModel,
    model: Model,
    clip: Clip,
    memory: ConceptMemory | None,
    vectors: int = 1,
) -> None:
    """Everything that would make learning this concept fail later, before any long work.

    vectors: that its token will stand for.
    """
    check_trainable(model, clip)
    if memory is not None:
        memory.check_base(base.identity)
        memory.check_fits(base.layout, base.unet, base.token_widths)
        check_free(concept.token, concept.name, [(c.name, c.handle) for c in memory.concepts])
    if concept.token in known_tokens(clip):
        raise ValueError(
            f"This CLIP already understands {concept.token}. "
            "Connect the checkpoint loader's CLIP, not one that a memory was applied to."
        )
    check_class_word(clip, concept.class_word)
    tokens = {} if memory is None else memory.token_vectors()
    tokens[concept.token] = {n: torch.zeros(vectors, width) for n, width in base.token_widths.items()}
    with_all = with_tokens(clip, tokens)
    checked: set[str] = set()
    for image in concept.images:
        # The class word may take more tokens than the learned one has vectors, or fewer.
        both = (*map(concept.class_caption, image.captions), *image.captions)
        captions = [c for c in dict.fromkeys(both) if c not in checked]
        management.throw_exception_if_processing_interrupted()
        try:
            check_length(with_all, captions)
        except ValueError as error:
            raise ValueError(f"The caption of {image.source}: {error}") from error
        checked.update(captions)


class HostMaterial:
    """What methods may look at (`method.Material`), from the user's own MODEL and CLIP."""

    def __init__(
        self,
        base: BaseModel,
        model: Model,
        clip: Clip,
        concept: Concept,
        memory: ConceptMemory | None,
        on_progress: OnProgress,
    ) -> None:
        self.layout, self.captions, self.taught = base.layout, concept.class_captions(), concept.taught()
        self.earlier = () if memory is None else memory.taught()
        self.device = management.get_torch_device()
        self._base, self._model = base, model
        known = {} if memory is None else memory.token_vectors()
        self._reader = PromptReader(clip, known, base.layout.shapes[0][1], on_progress)
        self.text_device = self._reader.device

    @property
    def notes(self) -> list[str]:
        """For the user, about what is kept on disk."""
        return self._reader.notes

    def weights_in(self, scope: str) -> ProjectionLayout:
        return weights_in(self._base.shapes, scope)

    def weights(self, layout: ProjectionLayout | None = None) -> Mapping[str, Tensor]:
        found = self._base.weights if layout is None else weights_of(self._model, layout)
        return _MovedOneByOne(found, self.device)

    def features(
        self, captions: Sequence[str], general: Sequence[str], tokens: str
    ) -> tuple[list[Tensor], list[Tensor]]:
        own, of_general = self._reader.features(captions, general, tokens)
        return [x.to(self.device) for x in own], [x.to(self.device) for x in of_general]

    def second_moments(self, groups: Sequence[Sequence[str]], tokens: str, lasting: int) -> list[Tensor]:
        return self._reader.second_moments(groups, tokens, lasting)


class _MovedOneByOne(Mapping[str, Tensor]):
    """Weights, float32 and on the device when they are asked for: SDXL's at once would take 1.4 GB there."""

    def __init__(self, weights: Mapping[str, Tensor], device: torch.device) -> None:
        self._weights, self._device = weights, device

    def __getitem__(self, name: str) -> Tensor:
        return self._weights[name].to(self._device).float()

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)
