"""Text features of many prompts, as methods look at them: with a progress bar, and nothing encoded twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import comfy.model_management as management
import torch
from torch import Tensor

from ..moments import second_moment
from ..text_features import TextFeatures, counted_tokens
from ..tokens import TokenVectors
from . import notices
from .kept_moments import KeptMoments
from .text import check_length, encode_prompts, with_tokens
from .types import Clip, OnProgress

_BATCH = 16  # prompts that are encoded at once
_MANY = 256  # prompts whose reading is told of


class PromptReader:
    """Reads prompts with a CLIP.

    Args:
        tokens: learned ones that the prompts may have in them (token -> encoder -> vectors).
        width: of the text features.
        on_progress: `(done, total)`; may raise to stop.

    Attributes:
        notes: for the user, about what is kept on disk.
        device: that the text encoder computes on.
    """

    def __init__(
        self, clip: Clip, tokens: Mapping[str, TokenVectors], width: int, on_progress: OnProgress
    ) -> None:
        self.notes: list[str] = []
        self.device = torch.device(clip.patcher.load_device)
        self._clip, self._width, self._on_progress = clip, width, on_progress
        self._with_tokens = with_tokens(clip, tokens) if tokens else clip

    def features(
        self, captions: Sequence[str], general: Sequence[str], tokens: str
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Each prompt's `(tokens, width)`, float32, on the CPU; see `method.Material.features`."""
        total = len(captions) + len(general) + 1  # and one for what is made of them
        self._load()
        with torch.no_grad():
            own = list(self._features(captions, tokens, lambda done: self._on_progress(done, total)))
            key = (self._clip.patcher.patches_uuid, self._clip.layer_idx, tuple(general), tokens)
            kept = _general.get(self._clip.cond_stage_model)
            if kept is None or kept[0] != key:
                done_before = len(captions)
                encoded = self._features(
                    general, tokens, lambda done: self._on_progress(done_before + done, total)
                )
                kept = (key, list(encoded))
                _general[self._clip.cond_stage_model] = kept
        self._on_progress(total - 1, total)
        return own, kept[1]

    def second_moments(self, groups: Sequence[Sequence[str]], tokens: str, lasting: int) -> list[Tensor]:
        """Each group's `(width, width)`, float64 on the CPU; see `method.Material.second_moments`."""
        # Prompts of the user's own are among them, and the reading of the others takes long.
        check_length(self._with_tokens, [prompt for group in groups[lasting:] for prompt in group])
        starts = [0, *itertools.accumulate(map(len, groups))]
        total = starts[-1] + 1
        self._load()

        def moment(number: int) -> Tensor:
            done, count = starts[number], len(groups[number])
            if number < lasting and count >= _MANY:
                notices.tell(
                    f"Reading {count:,} general prompts with this text encoder, so that what they say is "
                    "left alone: seconds on a GPU, minutes without one. What is found is kept for next time.",
                    warns=False,
                )
            features = self._features(
                groups[number], tokens, lambda count: self._on_progress(done + count, total)
            )
            return second_moment(features, self._width)

        kept = KeptMoments(self._clip, tokens, self._width)
        with torch.no_grad():
            moments = [
                kept.get(prompts, partial(moment, number)) if number < lasting and prompts else moment(number)
                for number, prompts in enumerate(groups)
            ]
        self.notes += kept.notes
        return moments

    def read(self, prompts: Sequence[str]) -> TextFeatures:
        """All tokens of some prompts, cross `(n, tokens, width)` on the CPU."""
        check_length(self._with_tokens, prompts)
        self._load()
        parts = []
        with torch.no_grad():
            for first in range(0, len(prompts), _BATCH):
                encoded = encode_prompts(self._with_tokens, prompts[first : first + _BATCH], pooled=False)
                parts.append(replace(encoded, cross=encoded.cross.cpu()))
                self._on_progress(min(first + _BATCH, len(prompts)), len(prompts))
        return TextFeatures.concatenated(parts)

    def _load(self) -> None:
        management.load_models_gpu([self._clip.patcher], force_full_load=True)

    def _features(
        self, prompts: Sequence[str], tokens: str, on_progress: Callable[[int], None]
    ) -> Iterator[Tensor]:
        """The tokens of each prompt that count, on the CPU."""
        for first in range(0, len(prompts), _BATCH):
            encoded = encode_prompts(self._with_tokens, prompts[first : first + _BATCH], pooled=False)
            rows = zip(encoded.cross.cpu()[:, : encoded.is_word.shape[1]], encoded.is_word, strict=True)
            yield from (counted_tokens(x, words, tokens) for x, words in rows)
            on_progress(min(first + _BATCH, len(prompts)))


# For each text encoder that the host holds, the general prompts that were last encoded with it: nodes keep no
# state, and the next concept's selection asks for the same ones.
_general: WeakKeyDictionary[Any, tuple[Any, list[Tensor]]] = WeakKeyDictionary()
