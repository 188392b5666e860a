"""What a loaded MODEL is: its family, clean K/V weights and noise levels, and whether it can be trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import comfy.model_sampling
import comfy.supported_models
import torch
from torch import Tensor

from ..families import FAMILIES, SUPPORTED, Family
from ..memory import fingerprint
from ..method import ModelIdentity
from ..projections import ProjectionLayout
from ..schedule import NoiseLevels
from .apply import carries_memory
from .text import token_tables
from .types import Clip, Model

PREFIX = "diffusion_model."


@dataclass(frozen=True, eq=False)
class BaseModel:
    """The untouched base of a MODEL and CLIP pair.

    weights: `name -> (out, text_dim)`, never patched values; parameters: of the whole U-Net.
    """

    identity: ModelIdentity
    family: Family
    layout: ProjectionLayout
    weights: Mapping[str, Tensor]
    parameters: int


def read_base(model: Model, clip: Clip) -> BaseModel:
    """What selection, training and memory need of a pair; ValueError when the two do not fit each other, or
    the MODEL is no text-to-image U-Net of a supported family.
    """
    if getattr(getattr(model, "model", None), "diffusion_model", None) is None:
        raise ValueError(
            f"MODEL is a {type(model).__name__} without a diffusion model; "
            "connect a checkpoint loader's MODEL."
        )
    family, tables = model_family(model), token_tables(clip)
    unet = dict(model.model.diffusion_model.named_parameters())
    layout = family.projections({name: tuple(parameter.shape) for name, parameter in unet.items()})
    width = sum(table.shape[1] for table in tables.values())
    if layout.shapes[0][1] != width:
        raise ValueError(
            f"The CLIP gives text features {width} wide, but this {family.name} U-Net reads "
            f"{layout.shapes[0][1]}. Connect the CLIP that belongs to the MODEL, from the same checkpoint."
        )
    weights = clean_weights(model, layout)
    identity = ModelIdentity(family.name, fingerprint(layout, weights, tables))
    return BaseModel(identity, family, layout, weights, sum(p.numel() for p in unet.values()))


def clean_weights(model: Model, layout: ProjectionLayout) -> dict[str, Tensor]:
    """K/V weights as the checkpoint holds them, whatever is merged at the moment.
    Quantised ones are dequantised.
    """
    patches = model.get_key_patches(PREFIX)
    weights = {}
    for name in layout.names:
        weight, convert = patches[f"{PREFIX}{name}.weight"][0]
        weight = convert(weight) if convert is not None else weight
        is_plain = type(weight) in (Tensor, torch.nn.Parameter)  # the host's quantised tensors are subclasses
        weights[name] = weight if is_plain else weight.dequantize()
    return weights


def check_trainable(model: Model) -> None:
    """ValueError for a MODEL of a supported family that concepts cannot be learned on as it is."""
    channels = model.model.latent_format.latent_channels
    takes = model.model.model_config.unet_config.get("in_channels", channels)
    if takes != channels:
        raise ValueError(
            f"This is an inpainting or editing U-Net ({takes} input channels instead of {channels}); "
            "concepts are learned on the plain text-to-image checkpoint. "
            "Its memory cannot be moved; load the plain one."
        )
    if carries_memory(model):
        raise ValueError(
            "This MODEL already carries a concept memory (from ApplyPersonalizedUNet). "
            "Connect the checkpoint loader's MODEL here and give the memory to the memory input instead."
        )
    noise_levels(model)


def noise_levels(model: Model) -> NoiseLevels:
    """The model's discrete noise levels and what it predicts; ValueError for flow and EDM models."""
    sampling = model.get_model_object("model_sampling")
    discrete = isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete)
    kinds = comfy.model_sampling
    other = tuple(getattr(kinds, n) for n in ("EDM", "CONST", "X0", "LCM") if hasattr(kinds, n))
    if not discrete or not isinstance(sampling, kinds.EPS) or isinstance(sampling, other):
        names = ", ".join(c.__name__ for c in type(sampling).__mro__[1:3])
        raise ValueError(
            f"This model samples by {names}; "
            "only noise (eps) and v prediction over discrete steps can be trained. "
            f"Supported: {SUPPORTED}."
        )
    sigmas = sampling.sigmas.detach().to("cpu", torch.float32)
    return NoiseLevels(
        1 / (sigmas.square() + 1), "v" if isinstance(sampling, kinds.V_PREDICTION) else "epsilon"
    )


def model_family(model: Model) -> Family:
    """The family of a MODEL; ValueError for one that is not supported."""
    config = model.model.model_config
    for family in FAMILIES.values():
        if isinstance(config, getattr(comfy.supported_models, family.host_class)):
            return family
    raise ValueError(f"This is a {type(config).__name__} model. Supported: {SUPPORTED}.")
