"""A seeded random checkpoint in SD 1.5's layout, so that everything can be tried without downloading a model.

What it draws is noise with structure and means nothing. Its weights are scaled so that activations keep their
size through the depth: pictures are finite and not constant, and the prompt changes them.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from small_base.layout import SIZES, TEXT_PREFIX, UNET_PREFIX, VAE_PREFIX
from small_base.training.text_encoder import LAYERS, TextEncoder
from small_base.training.unet import new_unet
from small_base.training.vae import SD15_LATENT_SCALE, Vae

DEFAULT_SEED = 2024
SMALL_TEXT_LAYERS = 2

# ComfyUI builds the text encoder from a fixed configuration; this option makes it build the small one.
# Pass it as `te_model_options` to comfy.sd.load_checkpoint_guess_config.
SMALL_TEXT_OPTIONS: dict[str, Any] = {"clip_l_model_config": {"num_hidden_layers": SMALL_TEXT_LAYERS}}

# (the end of a module's name, gain over 1/sqrt(fan-in)); the first that fits counts.
_GAINS: tuple[tuple[str, float], ...] = (
    # The last layer of a residual branch: small enough that many branches add up without growing.
    (".conv.4", 0.5),
    (".out_layers.3", 0.5),
    (".ff.net.2", 0.5),
    (".proj_out", 0.7),
    # Sharp enough attention over the text for single words to count, and a loud enough voice in the picture.
    (".attn2.to_q", 1.6),
    (".attn2.to_k", 1.6),
    (".attn2.to_out.0", 2.0),
    # The networks' outputs. A trained U-Net starts from zero here; zero would draw a constant.
    (".out.2", 0.5),
    ("taesd_encoder.14", 4.0),
    ("taesd_decoder.19", 0.3),
)
_GAIN_BEFORE_RELU = math.sqrt(2.0)
_EMBEDDING_STD = {"token_embedding": 0.02, "position_embedding": 0.01}  # CLIP's own
_BIAS_STD = 0.02


def random_state_dict(seed: int = DEFAULT_SEED, small: bool = False) -> dict[str, torch.Tensor]:
    """Every tensor of the checkpoint in fp16, decided by `seed` alone.

    With `small` the text encoder has 2 layers instead of 12; the host needs SMALL_TEXT_OPTIONS to load it.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = checkpoint_shapes(SMALL_TEXT_LAYERS if small else LAYERS)
    return {name: _random_weight(name, shape, generator).half() for name, shape in shapes.items()}


def checkpoint_shapes(text_layers: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of the checkpoint, in a fixed order: the base of size m, its text encoder whole."""
    with torch.device("meta"):
        unet = new_unet(SIZES["m"].channel_mult)
    parts = ((UNET_PREFIX, unet), (TEXT_PREFIX, TextEncoder(text_layers)), (VAE_PREFIX, Vae()))
    return {
        prefix + name: tuple(tensor.shape)
        for prefix, network in parts
        for name, tensor in sorted(network.state_dict().items())
    }


def write_random_checkpoint(path: Path, seed: int = DEFAULT_SEED, small: bool = False) -> Path:
    """Write the checkpoint (about 340 MB; small: 200 MB) as `.safetensors` and give back its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".partial")
    save_file(
        random_state_dict(seed, small), str(unfinished), metadata={"cns_random_checkpoint_seed": str(seed)}
    )
    unfinished.replace(path)  # whole or not at all: a later run takes an existing file for complete
    return path


def _random_weight(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    module, _, kind = name.rpartition(".")
    if name.endswith("vae_scale"):
        return torch.tensor(SD15_LATENT_SCALE)
    if name.endswith("vae_shift"):
        return torch.tensor(0.0)
    if _is_norm(module):
        return torch.ones(shape) if kind == "weight" else torch.zeros(shape)
    if kind == "bias":
        # The decoder's last bias is the middle grey: the picture is this plus the convolution.
        middle = 0.5 if module.endswith("taesd_decoder.19") else 0.0
        return torch.randn(shape, generator=generator) * _BIAS_STD + middle
    for embedding, deviation in _EMBEDDING_STD.items():
        if module.endswith(embedding):
            return torch.randn(shape, generator=generator) * deviation
    fan_in = math.prod(shape[1:])
    return torch.randn(shape, generator=generator) * (_gain(module) / math.sqrt(fan_in))


def _is_norm(module: str) -> bool:
    """Whether the module is a norm: by name, for a linear layer's bias has the shape of a norm's weight."""
    last = module.rpartition(".")[2]
    return "norm" in last or module.endswith((".in_layers.0", ".out_layers.0", ".out.0"))


def _gain(module: str) -> float:
    for end, gain in _GAINS:
        if module.endswith(end):
            return gain
    return _GAIN_BEFORE_RELU if ".taesd_" in module and ".conv." in module else 1.0
