"""A captioner on the device that the host works on, for as long as it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management as management

from ..captioner import Captioner
from . import paths
from .model_source import told_fetched
from .room import make_room


@contextmanager
def captioner(name: str) -> Iterator[tuple[Captioner, list[str]]]:
    """The image-to-text model of this name, and what to tell about where it comes from; afterwards its memory
    is free again. ValueError when there is none, or it cannot be fetched.
    """
    cache, source = paths.models_folder() / "caption_models", paths.caption_model(name)
    notes = told_fetched(source, cache, "caption model")
    loaded = Captioner.load(source, management.get_torch_device(), str(cache), make_room)
    try:
        yield loaded, notes
    finally:
        loaded.close()
        management.soft_empty_cache()


def stop_if_cancelled() -> None:
    """Raises the host's own exception when the user has pressed Cancel."""
    management.throw_exception_if_processing_interrupted()
