"""What a loaded MODEL is: its family, K/V weights and noise levels, and whether it can be trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import comfy.model_sampling
import comfy.supported_models
import torch
from torch import Tensor

from ..families import FAMILIES, SUPPORTED, Family
from ..identity import ModelIdentity
from ..projections import ProjectionLayout
from ..schedule import NoiseLevels
from ..weight_scopes import EVERYTHING, state_dict_key, weights_in
from . import last_model
from .apply import carries_memory
from .identity import PREFIX, model_identity
from .patches import forward_patches
from .text import token_tables
from .types import Clip, Model
from .weights import Weights
from .whole_models import check_whole


@dataclass(frozen=True, eq=False)
class BaseModel:
    """The base that concepts are learned on: a MODEL and CLIP pair, as it computes without any memory.

    weights: `name -> (out, text_dim)`, patched where the MODEL is a merge or carries LoRAs; shapes: of all of
    the U-Net's, by their names in its state dict; parameters: of the whole U-Net; token_widths: of each text
    encoder's token table.
    """

    identity: ModelIdentity
    family: Family
    layout: ProjectionLayout
    weights: Mapping[str, Tensor]
    shapes: Mapping[str, tuple[int, ...]]
    parameters: int
    token_widths: Mapping[str, int]

    @property
    def unet(self) -> ProjectionLayout:
        """All of the U-Net's weights."""
        return weights_in(self.shapes, EVERYTHING)


def read_base(model: Model, clip: Clip) -> BaseModel:
    """What selection and training need of a pair; ValueError when the two do not fit each other, or the MODEL
    is no text-to-image U-Net of a supported family.
    """
    family, layout = check_pair(model, clip)
    identity = model_identity(model, clip, family, layout)
    last_model.note([identity])
    shapes = unet_shapes(model)
    parameters = sum(map(prod, shapes.values()))
    widths = {name: table.shape[1] for name, table in token_tables(clip).items()}
    weights = weights_of(model, layout)
    return BaseModel(identity, family, layout, weights, shapes, parameters, widths)


def possible_bases(model: Model, clip: Clip) -> list[ModelIdentity]:
    """What a memory that is to be drawn with may have been made on: the model without the LoRAs on it, and
    with them. ValueError as from `read_base`.
    """
    family, layout = check_pair(model, clip)
    without = model_identity(model, clip, family, layout, added=False)
    if not Weights(model).patched() and not Weights(clip.patcher).patched():
        found = [without]
    else:
        found = [without, model_identity(model, clip, family, layout)]
    last_model.note(found)
    return found


def check_pair(model: Model, clip: Clip) -> tuple[Family, ProjectionLayout]:
    """The family and projections of a MODEL; ValueError when its CLIP does not fit it, or it is not
    supported.
    """
    if getattr(getattr(model, "model", None), "diffusion_model", None) is None:
        raise ValueError(
            f"MODEL is a {type(model).__name__} without a diffusion model; "
            "connect a checkpoint loader's MODEL."
        )
    family, tables = model_family(model), token_tables(clip)
    layout = family.projections(unet_shapes(model))
    width = sum(table.shape[1] for table in tables.values())
    if layout.shapes[0][1] != width:
        raise ValueError(
            f"The CLIP gives text features {width} wide, but this {family.name} U-Net reads "
            f"{layout.shapes[0][1]}. Connect the CLIP that belongs to the MODEL, from the same checkpoint."
        )
    return family, layout


def unet_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Of all of a U-Net's weights, by their names in its state dict."""
    unet = model.model.diffusion_model.named_parameters()
    return {name: tuple(parameter.shape) for name, parameter in unet}


def weights_of(model: Model, layout: ProjectionLayout) -> dict[str, Tensor]:
    """Some weights as the MODEL computes with them (see `Weights.computed`), as matrices."""
    weights = Weights(model, PREFIX)
    found = {name: weights.computed(f"{PREFIX}{state_dict_key(name)}") for name in layout.names}
    return {name: weight.reshape(layout.shape(name)) for name, weight in found.items()}


def check_trainable(model: Model, clip: Clip) -> None:
    """ValueError for a MODEL or CLIP of a supported family that concepts cannot be learned on as it is."""
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
    if patches := forward_patches(model):
        raise ValueError(
            f"This MODEL carries patches that training cannot go through ({'; '.join(patches)}). "
            "Connect the MODEL from before the node that adds them, and put that node between Apply "
            "Personalized UNet and the sampler."
        )
    if getattr(clip.patcher, "forced_hooks", None) is not None:
        raise ValueError(
            "This CLIP carries hooks (from Set CLIP Hooks or the like), which change with the sampling step; "
            "concepts are learned without. Connect the CLIP from before the node that sets them."
        )
    noise_levels(model)
    check_whole(model, clip)


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
    if isinstance(config, comfy.supported_models.SDXLRefiner):
        raise ValueError(
            "This is SDXL's refiner, which goes over pictures that the base model has drawn and has another "
            "text encoder. Connect MODEL and CLIP of the SDXL base checkpoint; concepts are learned on it."
        )
    raise ValueError(f"This is a {type(config).__name__} model. Supported: {SUPPORTED}.")
