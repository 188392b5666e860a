"""A CLIP that scores pictures, on the device that the host works on."""

from __future__ import annotations

import comfy.model_management as management

from ..evaluation.clip_scores import ClipScorer
from . import paths


def load_scorer(name: str) -> ClipScorer:
    """The CLIP model of this name; ValueError when there is none, or it cannot be fetched."""
    cache = str(paths.models_folder() / "clip_score")
    return ClipScorer.load(paths.clip_model(name), management.get_torch_device(), cache)
