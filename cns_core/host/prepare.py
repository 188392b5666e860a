"""Before training: what of the model may move, found by the method from captions and clean weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import comfy.model_management as management
import torch
from torch import Tensor

from ..concept import Concept, check_free
from ..memory import ConceptMemory
from ..method import Method, Plan
from ..moments import second_moment
from ..text_features import counted_tokens
from .kept_moments import KeptMoments
from .known_models import computes_as, lasting_digest
from .model import BaseModel, check_trainable, read_base
from .text import check_class_word, check_length, encode_prompts, known_tokens, with_tokens
from .types import Clip, Model, OnProgress

_BATCH = 16  # prompts that are encoded at once


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
    material = HostMaterial(base, clip, concept, memory, on_progress)
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
    concept: Concept, base: BaseModel, model: Model, clip: Clip, memory: ConceptMemory | None
) -> None:
    """Everything that would make learning this concept fail later, before any long work."""
    check_trainable(model, clip)
    if memory is not None:
        memory.check_base(base.identity)
        memory.check_fits(base.layout, base.token_widths)
        check_free(concept.token, concept.name, [(c.name, c.token) for c in memory.concepts])
    if concept.token in known_tokens(clip):
        raise ValueError(
            f"This CLIP already understands {concept.token}. "
            "Connect the checkpoint loader's CLIP, not one that a memory was applied to."
        )
    check_class_word(clip, concept.class_word)
    checked: set[str] = set()
    for image in concept.images:
        # The class word takes at least as many tokens as the learned one, which takes one.
        captions = [c for c in map(concept.class_caption, image.captions) if c not in checked]
        management.throw_exception_if_processing_interrupted()
        try:
            check_length(clip, captions)
        except ValueError as error:
            raise ValueError(f"The caption of {image.source}: {error}") from error
        checked.update(captions)


class HostMaterial:
    """What methods may look at (`method.Material`), from the user's own MODEL and CLIP."""

    def __init__(
        self,
        base: BaseModel,
        clip: Clip,
        concept: Concept,
        memory: ConceptMemory | None,
        on_progress: OnProgress,
    ) -> None:
        self.layout, self.captions, self.taught = base.layout, concept.class_captions(), concept.taught()
        self.earlier = () if memory is None else memory.taught()
        self.device = management.get_torch_device()
        self._base, self._clip, self._on_progress = base, clip, on_progress
        self.notes: list[str] = []  # for the user, about what is kept on disk
        self._with_earlier = clip if memory is None else with_tokens(clip, memory.token_vectors())

    def weights(self) -> Mapping[str, Tensor]:
        return {name: weight.to(self.device).float() for name, weight in self._base.weights.items()}

    def features(
        self, captions: Sequence[str], general: Sequence[str], tokens: str
    ) -> tuple[list[Tensor], list[Tensor]]:
        total = len(captions) + len(general) + 1  # and one for what is made of them
        self._load()
        with torch.no_grad():
            own = self._encoded(captions, tokens, lambda done: self._on_progress(done, total))
            key = (self._clip.patcher.patches_uuid, self._clip.layer_idx, tuple(general), tokens)
            kept = _general.get(self._clip.cond_stage_model)
            if kept is None or kept[0] != key:
                kept = (
                    key,
                    self._encoded(
                        general, tokens, lambda done: self._on_progress(len(captions) + done, total)
                    ),
                )
                _general[self._clip.cond_stage_model] = kept
        self._on_progress(total - 1, total)
        return [x.to(self.device) for x in own], [x.to(self.device) for x in kept[1]]

    def second_moments(self, groups: Sequence[Sequence[str]], tokens: str, lasting: int) -> list[Tensor]:
        width = self.layout.shapes[0][1]
        # Prompts of the user's own are among them, and the reading of the others takes long.
        check_length(self._clip, [prompt for group in groups[lasting:] for prompt in group])
        starts = [0, *itertools.accumulate(map(len, groups))]
        total = starts[-1] + 1
        self._load()

        def moment(number: int) -> Tensor:
            done = starts[number]
            features = self._features(
                groups[number], tokens, lambda count: self._on_progress(done + count, total)
            )
            return second_moment(features, width)

        kept = KeptMoments(self._clip, tokens, width)
        with torch.no_grad():
            moments = [
                kept.get(prompts, partial(moment, number)) if number < lasting and prompts else moment(number)
                for number, prompts in enumerate(groups)
            ]
        self.notes += kept.notes
        return moments

    def _load(self) -> None:
        management.load_models_gpu([self._clip.patcher], force_full_load=True)

    def _encoded(
        self, prompts: Sequence[str], tokens: str, on_progress: Callable[[int], None]
    ) -> list[Tensor]:
        """The tokens of each prompt that count, on the CPU."""
        return list(self._features(prompts, tokens, on_progress))

    def _features(
        self, prompts: Sequence[str], tokens: str, on_progress: Callable[[int], None]
    ) -> Iterator[Tensor]:
        for first in range(0, len(prompts), _BATCH):
            encoded = encode_prompts(self._with_earlier, prompts[first : first + _BATCH], pooled=False)
            rows = zip(encoded.cross.cpu()[:, : encoded.is_word.shape[1]], encoded.is_word, strict=True)
            yield from (counted_tokens(x, words, tokens) for x, words in rows)
            on_progress(min(first + _BATCH, len(prompts)))


# For each text encoder that the host holds, the general prompts that were last encoded with it: nodes keep no
# state, and the next concept's selection asks for the same ones.
_general: WeakKeyDictionary[Any, tuple[Any, list[Tensor]]] = WeakKeyDictionary()
