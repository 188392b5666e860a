"""What a loaded MODEL is: its family, its clean K/V weights, its noise levels, and whether it can be
trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.model_sampling
import comfy.supported_models
import torch
from torch import Tensor

from ..memory import BaseModel, fingerprint
from ..projections import SUPPORTED_FAMILIES, ProjectionLayout, find_projections
from ..schedule import NoiseLevels
from .apply import carries_memory
from .text import token_tables

PREFIX = "diffusion_model."


@dataclass(frozen=True, eq=False)
class Base:
    """The untouched base of a MODEL and CLIP pair. weights: `name -> (out, text_dim)`, never patched
    values.
    """

    identity: BaseModel
    layout: ProjectionLayout
    weights: Mapping[str, Tensor]
    parameters: int


def read_base(model: Any, clip: Any) -> Base:
    """Check that MODEL and CLIP are a pair that can learn concepts and read what selection and memory need
    of them.
    """
    check_model(model)
    identity, weights = identify(model, clip)
    parameters = sum(p.numel() for p in model.model.diffusion_model.parameters())
    return Base(identity, model_layout(model), weights, parameters)


def identify(model: Any, clip: Any) -> tuple[BaseModel, dict[str, Tensor]]:
    """Which base MODEL and CLIP belong to, and its clean K/V weights; ValueError when the two do not fit
    each other.
    """
    family = _family(model)
    tables = token_tables(clip)
    layout = model_layout(model)
    widths = sum(t.shape[1] for t in tables.values())
    if layout.shapes[0][1] != widths:
        raise ValueError(
            f"The CLIP gives text features {widths} wide, but this {family} U-Net reads "
            f"{layout.shapes[0][1]}. Connect the CLIP that "
            "belongs to the MODEL, from the same checkpoint."
        )
    weights = clean_weights(model, layout)
    return BaseModel(family, fingerprint(layout, weights, tables)), weights


def model_layout(model: Any) -> ProjectionLayout:
    """The projections of the loaded U-Net, named relative to it."""
    shapes = {n: tuple(p.shape) for n, p in model.model.diffusion_model.named_parameters()}
    return find_projections(shapes)


def clean_weights(model: Any, layout: ProjectionLayout) -> dict[str, Tensor]:
    """K/V weights as the checkpoint holds them, whatever is merged at the moment; quantised ones
    dequantised.
    """
    patches = model.get_key_patches(PREFIX)
    weights = {}
    for name in layout.names:
        weight, convert = patches[f"{PREFIX}{name}.weight"][0]
        weight = convert(weight) if convert is not None else weight
        is_plain = type(weight) in (Tensor, torch.nn.Parameter)  # the host's quantised tensors are subclasses
        weights[name] = weight if is_plain else weight.dequantize()
    return weights


def check_model(model: Any) -> None:
    """ValueError for anything that is no text-to-image U-Net this pack can train."""
    inner = getattr(getattr(model, "model", None), "diffusion_model", None)
    if inner is None:
        raise ValueError(
            f"MODEL is a {type(model).__name__} without a diffusion model; connect a checkpoint loader's "
            "MODEL."
        )
    model_layout(model)
    channels = model.model.latent_format.latent_channels
    takes = model.model.model_config.unet_config.get("in_channels", channels)
    if takes != channels:
        raise ValueError(
            f"This is an inpainting or editing U-Net ({takes} input channels instead of {channels}); "
            "concepts are learned on the plain "
            "text-to-image checkpoint. Its memory cannot be moved; load the plain one."
        )
    if carries_memory(model):
        raise ValueError(
            "This MODEL already carries a concept memory (from ApplyPersonalizedUNet). Connect the "
            "checkpoint loader's MODEL here and "
            "give the memory to the memory input instead."
        )
    noise_levels(model)


def noise_levels(model: Any) -> NoiseLevels:
    """The model's discrete noise levels and what it predicts; ValueError for flow and EDM models."""
    sampling = model.get_model_object("model_sampling")
    discrete = isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete)
    kinds = comfy.model_sampling
    other = tuple(getattr(kinds, n) for n in ("EDM", "CONST", "X0", "LCM") if hasattr(kinds, n))
    if not discrete or not isinstance(sampling, kinds.EPS) or isinstance(sampling, other):
        names = ", ".join(c.__name__ for c in type(sampling).__mro__[1:3])
        raise ValueError(
            f"This model samples by {names}; only noise (eps) and v prediction over discrete steps can be "
            "trained. "
            f"Supported: {SUPPORTED_FAMILIES}."
        )
    sigmas = sampling.sigmas.detach().to("cpu", torch.float32)
    kind = "v" if isinstance(sampling, kinds.V_PREDICTION) else "epsilon"
    return NoiseLevels(1 / (sigmas.square() + 1), kind)  # type: ignore[arg-type]


def _family(model: Any) -> str:
    config, kinds = model.model.model_config, comfy.supported_models
    for name, family in (("SDXL", "SDXL"), ("SD20", "SD2"), ("SD15", "SD1")):
        if isinstance(config, getattr(kinds, name)):
            return family
    raise ValueError(f"This is a {type(config).__name__} model. Supported: {SUPPORTED_FAMILIES}.")
