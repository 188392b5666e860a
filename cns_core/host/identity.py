"""Which model a MODEL, CLIP and VAE are, as they will compute: patched, in whatever precision they are held.

Everything that is kept for later (memories, runs, class images, moments) goes by these identities; keys that
lie on disk are made of them in `known_models.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..families import Family
from ..identity import ModelIdentity, fingerprint, sample_of
from ..projections import ProjectionLayout
from .text import inner_tokenizers, token_tables
from .types import Clip, Model, Vae
from .weights import Weights

PREFIX = "diffusion_model."
_PROJECTION_ROWS = 8

_Parts = Iterator[tuple[Tensor, torch.dtype, int]]


def model_identity(
    model: Model, clip: Clip, family: Family, layout: ProjectionLayout, added: bool = True
) -> ModelIdentity:
    """That of a MODEL and CLIP pair.

    added: with LoRAs and the like, else of what they were added to.
    """

    def read() -> ModelIdentity:
        unet = Weights(model, PREFIX)
        projections = {name: unet.computed(f"{PREFIX}{name}.weight", added) for name in layout.names}
        sample = sample_of([*_unet_parts(unet, projections, added), *_text_parts(clip, added)])
        tables = token_tables(clip, added)
        return ModelIdentity(family.name, fingerprint(layout, projections, tables), sample)

    return _remembered((model.patches_uuid, clip.patcher.patches_uuid, added), read)


def text_identity(clip: Clip) -> ModelIdentity:
    """That of the text encoders alone."""

    def read() -> ModelIdentity:
        sample = sample_of(_text_parts(clip, True))
        return ModelIdentity("text encoder", sample.digest(), sample)

    return _remembered((clip.patcher.patches_uuid,), read)


def vae_identity(vae: Vae) -> ModelIdentity:
    """That of a VAE."""

    def read() -> ModelIdentity:
        weights = Weights(vae.patcher)
        sample = sample_of((weights.computed(n), weights.dtype(n), 1) for n in weights.names())
        return ModelIdentity("VAE", sample.digest(), sample)

    return _remembered((vae.patcher.patches_uuid,), read)


def _unet_parts(unet: Weights, projections: dict[str, Tensor], added: bool) -> _Parts:
    keys = {f"{PREFIX}{name}.weight": weight for name, weight in projections.items()}
    for key, weight in keys.items():
        yield weight, unet.dtype(key), _PROJECTION_ROWS
    for key in unet.names():
        if key not in keys:
            yield unet.computed(key, added), unet.dtype(key), 1


def _text_parts(clip: Clip, added: bool) -> _Parts:
    weights = Weights(clip.patcher)
    # What else lies beside them (a logit scale, a projection) some checkpoints have and others lack.
    encoders = tuple(f"{name}.transformer.text_model." for name in sorted(inner_tokenizers(clip)))
    for key in weights.names():
        if key.startswith(encoders):
            yield weights.computed(key, added), weights.dtype(key), 1


# What was read last: the host gives a patcher another uuid with every patch, so that one stands for its
# weights. Reading a patched SDXL takes seconds.
_read: OrderedDict[tuple[Any, ...], ModelIdentity] = OrderedDict()
_READ_AT_MOST = 32


def _remembered(key: tuple[Any, ...], read: Callable[[], ModelIdentity]) -> ModelIdentity:
    if key not in _read:
        with torch.no_grad():
            _read[key] = read()
        while len(_read) > _READ_AT_MOST:
            _read.popitem(last=False)
    _read.move_to_end(key)
    return _read[key]
