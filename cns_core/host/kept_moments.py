"""Moments of general prompts, kept on disk: thousands of prompts are encoded once for each text encoder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ..atomic_write import write_atomically
from .identity import text_identity
from .known_models import computes_as, lasting_digest
from .paths import work_folder
from .types import Clip


def kept_moment(clip: Clip, prompts: Sequence[str], tokens: str, make: Callable[[], Tensor]) -> Tensor:
    """What `make` gives for these prompts, `(d, d)` float64, or what it gave before.

    The key holds the text encoder's weights as they are patched, the clip skip, the prompts and which tokens
    count.
    """
    key = lasting_digest(computes_as(text_identity(clip), clip), tokens, *prompts)
    path = work_folder("moments") / f"{key}.safetensors"
    if (kept := _read(path)) is not None:
        return kept
    made = make()
    write_atomically(path, save({"moment": made}))
    return made


def _read(path: Path) -> Tensor | None:
    if not path.exists():
        return None
    try:
        moment: Tensor = load_file(path)["moment"]
    except (SafetensorError, KeyError, OSError) as error:
        logging.warning(f"CNS: {path} is damaged ({error}); its prompts are encoded again.")
        return None
    square = moment.ndim == 2 and moment.shape[0] == moment.shape[1]
    if not square or moment.dtype != torch.float64 or not bool(torch.isfinite(moment).all()):
        found = f"{moment.dtype} {tuple(moment.shape)}"
        logging.warning(f"CNS: {path} holds no second moment ({found}); its prompts are encoded again.")
        return None
    return moment
