"""SD 1.x, SD 2.x and SDXL, narrow and with few layers but laid out as they were published, with seeded
weights: in the host, and the same in diffusers.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

_WIDTH = 64
_UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": _WIDTH,
    "use_spatial_transformer": True,
    "legacy": False,
    "dtype": torch.float32,
}
_FOUR_LEVELS = {
    "channel_mult": [1, 2, 4, 4],
    "num_res_blocks": [2] * 4,
    "transformer_depth": [1] * 6 + [0] * 2,
    "transformer_depth_output": [1] * 9 + [0] * 3,
    "transformer_depth_middle": 1,
}
_HOST_UNETS = {
    "SD1": {**_FOUR_LEVELS, "num_heads": 8, "context_dim": 768},
    "SD2": {
        **_FOUR_LEVELS,
        "num_heads": -1,
        "num_head_channels": 64,
        "use_linear_in_transformer": True,
        "context_dim": 1024,
    },
    "SDXL": {
        "channel_mult": [1, 2, 4],
        "num_res_blocks": [2] * 3,
        "transformer_depth": [0, 0, 2, 2, 3, 3],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 3, 3, 3],
        "transformer_depth_middle": 3,
        "num_heads": -1,
        "num_head_channels": 64,
        "use_linear_in_transformer": True,
        "context_dim": 2048,
        "num_classes": "sequential",
        "adm_in_channels": 2816,
    },
}
# attention_head_dim is what diffusers calls the number of heads here.
_TWIN_UNETS: dict[str, dict[str, Any]] = {
    "SD1": {"attention_head_dim": 8, "cross_attention_dim": 768},
    "SD2": {
        "attention_head_dim": (1, 2, 4, 4),
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
    "SDXL": {
        "block_out_channels": (_WIDTH, 2 * _WIDTH, 4 * _WIDTH),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 3),
        "attention_head_dim": (1, 2, 4),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
_LAYERS = {"SD1": {"clip_l": 2}, "SD2": {"clip_h": 3}, "SDXL": {"clip_l": 3, "clip_g": 3}}
FAMILIES = tuple(_LAYERS)


class Narrow(NamedTuple):
    """What a checkpoint loader gives a graph, but for the VAE."""

    model: Any
    clip: Any


def narrow_model(family: str) -> Narrow:
    """In the host, which has to be importable."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.sd
    import comfy.sd1_clip
    import comfy.sdxl_clip
    import comfy.supported_models
    import comfy.text_encoders.sd2_clip as sd2

    base, sd1, sdxl = comfy.model_base, comfy.sd1_clip, comfy.sdxl_clip
    config_type, kind, encoder, tokenizer = {
        "SD1": (comfy.supported_models.SD15, base.BaseModel, sd1.SD1ClipModel, sd1.SD1Tokenizer),
        "SD2": (comfy.supported_models.SD20, base.BaseModel, sd2.SD2ClipModel, sd2.SD2Tokenizer),
        "SDXL": (comfy.supported_models.SDXL, base.SDXL, sdxl.SDXLClipModel, sdxl.SDXLTokenizer),
    }[family]
    layers = {f"{name}_model_config": {"num_hidden_layers": n} for name, n in _LAYERS[family].items()}
    cpu = torch.device("cpu")
    with torch.inference_mode():
        config = config_type({**_UNET, **_HOST_UNETS[family]})
        config.custom_operations = None
        inner = kind(config, device=cpu)
        _fill(inner.diffusion_model, 0)
        model = comfy.model_patcher.ModelPatcher(inner, load_device=cpu, offload_device=cpu)
        target = SimpleNamespace(params={}, clip=encoder, tokenizer=tokenizer)
        clip = comfy.sd.CLIP(target, model_options={**layers, "dtype": torch.float32})
        _fill(clip.cond_stage_model, 1)
    return Narrow(model, clip)


def diffusers_twin(family: str, narrow: Narrow) -> Any:
    """A pipeline of diffusers with copies of a narrow model's weights, as diffusers itself converts them.

    Its configurations are the published ones but for widths and depths; it has no VAE.
    """
    import diffusers
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    settings = {"block_out_channels": [_WIDTH * m for m in (1, 2, 4, 4)], **_TWIN_UNETS[family]}
    unet = diffusers.UNet2DConditionModel(sample_size=8, **settings)
    weights = narrow.model.model.diffusion_model.state_dict()
    original = {f"model.diffusion_model.{name}": tensor.clone() for name, tensor in weights.items()}
    unet.load_state_dict(convert_ldm_unet_checkpoint(original, unet.config))
    parts = {"vae": None, "unet": unet.eval(), "scheduler": diffusers.DDIMScheduler()}
    for place, encoder in enumerate(_LAYERS[family]):
        suffix = f"_{place + 1}" if place else ""
        parts[f"text_encoder{suffix}"] = _twin_of_encoder(family, narrow, encoder)
        parts[f"tokenizer{suffix}"] = _twin_of_tokenizer(encoder)
    if family == "SDXL":
        return diffusers.StableDiffusionXLPipeline(**parts)
    return diffusers.StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )


def _twin_of_encoder(family: str, narrow: Narrow, encoder: str) -> Any:
    import transformers

    inner = getattr(narrow.clip.cond_stage_model, encoder).transformer
    read = {name: tensor.clone() for name, tensor in inner.state_dict().items()}
    width = read["text_model.final_layer_norm.weight"].shape[0]
    # The published SD 2.x leaves out the layer that is not read.
    layers = _LAYERS[family][encoder] - (family == "SD2")
    config = transformers.CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=width // 64,
        num_hidden_layers=layers,
        hidden_act="quick_gelu" if encoder == "clip_l" else "gelu",
        projection_dim=width,
        eos_token_id=2,  # as published; transformers knows it for a mistake
    )
    if encoder == "clip_g":
        model = transformers.CLIPTextModelWithProjection(config)
    else:
        model = transformers.CLIPTextModel(config)
        read = {name.removeprefix("text_model."): tensor for name, tensor in read.items()}
    wanted = model.state_dict().keys()
    model.load_state_dict({name: tensor for name, tensor in read.items() if name in wanted})
    return model.eval()


def _twin_of_tokenizer(encoder: str) -> Any:
    import comfy
    import transformers

    folder = Path(comfy.sd1_clip.__file__).with_name("sd1_tokenizer")
    padding = {} if encoder == "clip_l" else {"pad_token": "!"}
    return transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=77, **padding)


def _fill(network: torch.nn.Module, seed: int) -> None:
    """The host's layers come with uninitialised memory."""
    generator = torch.Generator().manual_seed(seed)
    norms = (torch.nn.GroupNorm, torch.nn.LayerNorm)
    of_norms = {id(module.weight) for module in network.modules() if isinstance(module, norms)}
    for name, parameter in network.named_parameters():
        if parameter.ndim < 2:
            parameter.fill_(float(id(parameter) in of_norms))
        else:
            deviation = 0.02 if "embedding" in name else parameter[0].numel() ** -0.5
            parameter.normal_(0, deviation, generator=generator)
