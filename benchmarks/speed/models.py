"""Models with random weights, in the host: how long a step takes does not depend on what it computes.

`small` is the 44 M layout of the random checkpoint, `sd15` and `sdxl` have the full size.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models
import torch
from torch import nn

from cns_core.methods.cns.masks import NeuronMask
from cns_core.projections import ProjectionLayout

SHARE = 0.065  # of K/V, the pack's default budget
_COMMON = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "use_spatial_transformer": True,
    "legacy": False,
}
_UNETS: dict[str, dict[str, Any]] = {
    "small": {
        "channel_mult": [1, 1],
        "num_res_blocks": [1, 1],
        "transformer_depth": [1, 1],
        "transformer_depth_output": [1, 1, 1, 1],
        "transformer_depth_middle": 1,
        "num_heads": 8,
        "context_dim": 768,
        "use_linear_in_transformer": False,
    },
    "sd15": {
        "channel_mult": [1, 2, 4, 4],
        "num_res_blocks": [2, 2, 2, 2],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "transformer_depth_middle": 1,
        "num_heads": 8,
        "context_dim": 768,
        "use_linear_in_transformer": False,
    },
    "sdxl": {
        "channel_mult": [1, 2, 4],
        "num_res_blocks": [2, 2, 2],
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "transformer_depth_middle": 10,
        "num_heads": -1,
        "num_head_channels": 64,
        "context_dim": 2048,
        "use_linear_in_transformer": True,
        "num_classes": "sequential",
        "adm_in_channels": 2816,
    },
}


@dataclass(frozen=True)
class HostModel:
    """MODEL and CLIP as a checkpoint loader gives them."""

    model: Any
    clip: Any


def unet_config(size: str) -> dict[str, Any]:
    """How the U-Net of this size is laid out, as the host's own class takes it."""
    return {**_COMMON, **_UNETS[size]}


def host_model(size: str, device: torch.device | None = None) -> HostModel:
    """A model of this size on that device, or the host's own, in the dtypes that the host chooses there for a
    float16 checkpoint.
    """
    management, xl = comfy.model_management, size == "sdxl"
    device = device or management.get_torch_device()
    family = comfy.supported_models.SDXL if xl else comfy.supported_models.SD15
    supported = family.supported_inference_dtypes
    dtype = management.unet_dtype(device=device, supported_dtypes=supported, weight_dtype=torch.float16)
    config = family({**unet_config(size), "dtype": dtype})
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, supported))
    offload = torch.device("cpu")
    inner = (comfy.model_base.SDXL if xl else comfy.model_base.BaseModel)(config, device=offload)
    _fill(inner.diffusion_model)
    model = comfy.model_patcher.ModelPatcher(inner, load_device=device, offload_device=offload)
    parts = (
        (comfy.sdxl_clip.SDXLClipModel, comfy.sdxl_clip.SDXLTokenizer)
        if xl
        else (comfy.sd1_clip.SD1ClipModel, comfy.sd1_clip.SD1Tokenizer)
    )
    target = SimpleNamespace(params={}, clip=parts[0], tokenizer=parts[1])
    clip = comfy.sd.CLIP(target, model_options={"load_device": device})
    _fill(clip.cond_stage_model)
    return HostModel(model, clip)


def random_mask(layout: ProjectionLayout, seed: int) -> NeuronMask:
    """A mask over a random `SHARE` of K/V."""
    generator = torch.Generator().manual_seed(seed)
    dense = {name: torch.rand(shape, generator=generator) < SHARE for name, shape, _ in layout.slices()}
    return NeuronMask.from_dense(layout, dense)


def _fill(module: nn.Module) -> None:
    """The host's layers come with uninitialised memory."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        if parameter.ndim < 2:
            value = torch.full(parameter.shape, float(name.endswith("weight")))
        else:
            value = torch.randn(parameter.shape, generator=generator) * (0.7 / parameter[0].numel() ** 0.5)
        parameter.data.copy_(value)
