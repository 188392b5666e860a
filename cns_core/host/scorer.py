"""A CLIP that scores pictures, on the device that the host works on."""

from __future__ import annotations

import comfy.model_management as management

from ..evaluation.clip_scores import ClipScorer
from . import paths
from .model_source import told_fetched
from .room import make_room


def load_scorer(name: str) -> tuple[ClipScorer, list[str]]:
    """The CLIP model of this name, and what to tell about where it comes from.
    ValueError when there is none, or it cannot be fetched.
    """
    cache, source = paths.models_folder() / "clip_score", paths.clip_model(name)
    notes = told_fetched(source, cache, "CLIP model")
    return ClipScorer.load(source, management.get_torch_device(), str(cache), make_room), notes
