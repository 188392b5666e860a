"""A CLIP that scores pictures, on the device that the host works on."""

from __future__ import annotations

import logging
import os

import comfy.model_management as management

from ..evaluation.clip_scores import ClipScorer
from . import paths


def load_scorer(name: str) -> tuple[ClipScorer, list[str]]:
    """The CLIP model of this name, and what to tell about where it comes from.
    ValueError when there is none, or it cannot be fetched.
    """
    cache, source = paths.models_folder() / "clip_score", paths.clip_model(name)
    notes = []
    if not os.path.isdir(source) and not (cache / f"models--{source.replace('/', '--')}").exists():
        notes.append(f"- the CLIP model {source} was fetched from Hugging Face into {cache}")
        logging.warning(
            f"CNS: {source} is no folder below models/; it is fetched from Hugging Face into {cache}"
        )
    return ClipScorer.load(source, management.get_torch_device(), str(cache)), notes
