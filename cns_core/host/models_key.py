"""What MODEL, CLIP and VAE compute, as a key for what is kept of it."""

from __future__ import annotations

from ..identity import ModelIdentity
from .identity import vae_identity
from .known_models import computes_as, lasting_key
from .model import noise_levels
from .types import Clip, Loaded, Model


def models_key(loaded: Loaded, identity: ModelIdentity) -> str:
    """All of them that decides what is learned or drawn, whatever the precision in which they are held.

    identity: of MODEL and CLIP.
    """
    text, vae = computes_as(identity, loaded.clip), lasting_key(vae_identity(loaded.vae))
    return f"{text}, {vae}, {_noise(loaded.model)}"


def latents_key(model: Model, clip: Clip, identity: ModelIdentity) -> str:
    """The same where no VAE takes part."""
    return f"{computes_as(identity, clip)}, {_noise(model)}"


def _noise(model: Model) -> str:
    levels = noise_levels(model)
    noise = " ".join(f"{level:.4g}" for level in levels.alphas_cumprod.tolist())
    return f"{levels.prediction_type} over {noise}"


def precision_key(loaded: Loaded) -> str:
    """The precision in which they are held and computed with: pictures in two of them are only alike."""
    model, clip, vae = loaded.model, loaded.clip, loaded.vae
    text = getattr(clip.patcher, "model_dtype", lambda: None)()
    found = (model.model_dtype(), model.model.manual_cast_dtype, text, getattr(vae, "vae_dtype", None))
    return " ".join(map(str, found))
