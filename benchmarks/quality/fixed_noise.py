"""Measures of low variance: what the model predicts at fixed noise and noise levels, without drawing.

fit             the mean squared error on a concept's own pictures under its own captions
forgetting      by how much an earlier concept's fit rises until the end of a stream
drift           how far predictions for prompts without a learned token move: the mean square of the change
                over that of what the prompt changes, against the empty one, in the untouched model
class drift     the same for a concept's captions with its class word, on its own pictures
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cns_core.concept import Concept
from cns_core.framing import Framings
from cns_core.host.backend import HostBackend, training_mode
from cns_core.host.latents import encode_concept
from cns_core.host.precision import FLOAT32
from cns_core.host.text import token_tables
from cns_core.host.types import Loaded
from cns_core.laid import Laid
from cns_core.memory import ConceptMemory
from cns_core.methods.base import adding
from cns_core.noised import Noised, even_levels, noised
from cns_core.text_features import TextFeatures

PAIRS = 64  # of noise and noise level, for each concept and for each of two kinds of drift
_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pictures, noised, the prompts to predict the noise by, and what the pictures were cut from; None: they
    are as drawn.
    """

    noised: Noised
    captions: Sequence[str]
    class_captions: Sequence[str] = ()
    framings: Framings | None = None


@dataclass(frozen=True)
class Seen:
    """Of one memory: each concept's fit by name, and the drifts."""

    fit: Mapping[str, float]
    drift: float
    class_drift: Mapping[str, float]


class FixedNoise:
    """The measures on one base model; concepts are added to it.

    prompts: without a learned token, as many as PAIRS.
    latents: of pictures of them, `(PAIRS, C, h, w)`, scaled.
    """

    def __init__(self, loaded: Loaded, prompts: Sequence[str], latents: Tensor) -> None:
        self._loaded = loaded
        with training_mode(), torch.no_grad():
            backend = self._backend(None)
            generator = torch.Generator().manual_seed(12345)
            self._world = _pairs(backend, latents.clone(), generator, prompts)
            with backend.weights_patched({}):
                self._plain = self._predicted(backend, self._world, prompts)
                empty = self._predicted(backend, self._world, [""] * len(prompts))
            self._scale = float((self._plain - empty).square().mean())
        self._of: dict[str, Pairs] = {}
        self._plain_class: dict[str, Tensor] = {}

    def names(self) -> set[str]:
        """Of the concepts that were added."""
        return set(self._of)

    def add(self, concept: Concept) -> None:
        """Make the pairs of a concept's pictures."""
        generator = torch.Generator().manual_seed(777)
        with training_mode(), torch.no_grad():
            backend = self._backend(None)
            images = encode_concept(self._loaded, concept, lambda done, total: None)
            picked = [images[i % len(images)] for i in range(PAIRS)]
            number = [int(torch.randint(len(i.captions), (), generator=generator)) for i in picked]
            captions = [i.captions[n] for i, n in zip(picked, number, strict=True)]
            about_class = [i.class_captions[n] for i, n in zip(picked, number, strict=True)]
            z0 = torch.stack([i.latents for i in picked]).clone()
            framings = [i.framing for i in picked]
            pairs = _pairs(backend, z0, generator, captions, about_class, framings)
            with backend.weights_patched({}):
                self._plain_class[concept.name] = self._predicted(backend, pairs, about_class)
            self._of[concept.name] = pairs

    def class_word_error(self, name: str) -> float:
        """What the untouched model's error is under the class word: where learning begins."""
        return float((self._plain_class[name] - self._of[name].noised.target).square().mean())

    def look(self, memory: ConceptMemory, names: Sequence[str]) -> Seen:
        """The drift, and the fit and class drift of some concepts of the memory."""
        with training_mode(), torch.no_grad():
            backend = self._backend(memory)
            with backend.weights_patched({n: adding(_change(laid)) for n, laid in memory.laid().items()}):
                drift = self._moved(backend, self._world, self._world.captions, self._plain)
                fit, class_drift = {}, {}
                for name in names:
                    pairs, plain = self._of[name], self._plain_class[name]
                    error = self._predicted(backend, pairs, pairs.captions) - pairs.noised.target
                    fit[name] = float(error.square().mean())
                    class_drift[name] = self._moved(backend, pairs, pairs.class_captions, plain)
        return Seen(fit, drift, class_drift)

    def _moved(self, backend: HostBackend, pairs: Pairs, prompts: Sequence[str], plain: Tensor) -> float:
        return float((self._predicted(backend, pairs, prompts) - plain).square().mean()) / self._scale

    def _backend(self, memory: ConceptMemory | None) -> HostBackend:
        loaded = self._loaded
        vectors = {n: torch.zeros(1, t.shape[1]) for n, t in token_tables(loaded.clip).items()}
        known = {} if memory is None else memory.token_vectors()
        return HostBackend(loaded.model, loaded.clip, "<no-concept>", vectors, known, FLOAT32)

    def _predicted(self, backend: HostBackend, pairs: Pairs, prompts: Sequence[str]) -> Tensor:
        unique = list(dict.fromkeys(prompts))
        parts = [backend.encode(unique[i : i + 16], None) for i in range(0, len(unique), 16)]
        text = TextFeatures.concatenated(parts)
        rows = [unique.index(prompt) for prompt in prompts]
        z_t, t = pairs.noised.z_t, pairs.noised.t
        framings = pairs.framings or [None] * len(rows)
        places = [slice(i, i + _AT_ONCE) for i in range(0, len(rows), _AT_ONCE)]
        return torch.cat(
            [backend.predict(z_t[at], t[at], text.rows(rows[at]), framings[at]) for at in places]
        )


def _change(laid: Laid) -> Tensor:
    if laid.dense is None:
        return laid.up @ laid.down
    return torch.addmm(laid.dense.float(), laid.up, laid.down)


def _pairs(
    backend: HostBackend,
    z0: Tensor,
    generator: torch.Generator,
    captions: Sequence[str],
    class_captions: Sequence[str] = (),
    framings: Framings | None = None,
) -> Pairs:
    t = even_levels(len(z0), backend.levels, generator)
    return Pairs(noised(z0, t, backend.levels, generator), captions, class_captions, framings)
