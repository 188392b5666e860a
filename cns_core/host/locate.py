"""LocateConcept in the host: where in the U-Net a learned concept lives."""

from __future__ import annotations

import torch

from ..concept import Concept
from ..localisation import Localisation, LocateSettings, Switched, localise
from ..memory import ConceptMemory
from ..noised import NoisedPictures
from ..places import places_of
from ..refine import pictured
from .backend import HostBackend, training_mode
from .latents import encode_concept
from .model import check_trainable, read_base
from .precision import Precision
from .text import check_length, known_tokens, with_tokens
from .types import Loaded, OnProgress


def locate(
    loaded: Loaded,
    memory: ConceptMemory,
    concept: Concept,
    settings: LocateSettings,
    on_progress: OnProgress,
    precision: Precision | None = None,
) -> Localisation:
    """Measure in which layers a concept of the memory lives, on these pictures of it. MODEL, CLIP and VAE
    stay as they are.

    precision: None computes in what training would.

    Raises:
        ValueError: the models, the memory and the pictures do not fit; before any long work. Or nothing was
            learned in the U-Net.
    """
    model, clip = loaded.model, loaded.clip
    base = read_base(model, clip)
    check_trainable(model, clip)
    memory.check_base(base.identity)
    memory.check_fits(base.layout, base.unet, base.token_widths)
    if tokens := known_tokens(clip):
        raise ValueError(
            f"This CLIP already understands {', '.join(tokens)}. Connect the checkpoint loader's CLIP, not "
            "one that a memory was applied to."
        )
    learned = pictured(memory, concept)
    known = memory.token_vectors()
    captions = dict.fromkeys(
        caption
        for image in concept.images
        for own in image.captions
        for caption in (own, concept.class_caption(own))
    )
    check_length(with_tokens(clip, known), list(captions))
    images = encode_concept(loaded, concept, on_progress)
    masked = bool(learned.settings.get("train", {}).get("masked_loss"))
    with training_mode(), torch.no_grad():
        backend = HostBackend(model, clip, learned.token, learned.token_vectors, known, precision)
        switched = Switched(memory, learned.token, backend.device)
        with backend.weights_patched(switched.weight_functions()):
            pictures = NoisedPictures(backend, images, settings.samples, settings.seed, masked)
            places = places_of(memory.layout, learned.change.layout)
            return localise(pictures, learned.token, switched, places, settings.keys_and_values, on_progress)
