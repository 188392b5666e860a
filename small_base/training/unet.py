"""SD 1.5's U-Net in small: ComfyUI's own, with fewer levels and blocks.

A state dict of it is a checkpoint's part "model.diffusion_model." without that prefix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from devtools.in_process import import_comfyui

from .host_layers import initialise

WIDTH = 320  # of the finest level


def new_unet(channel_mult: Sequence[int]) -> nn.Module:
    """An untrained one: one residual block and one transformer a level, on the way down.

    Args:
        channel_mult: each level's width in units of 320, from the finest on; each further level has half the
            resolution. (1,) makes 26 M parameters, (1, 1) makes 44 M.
    """
    if not channel_mult or min(channel_mult) < 1:
        raise ValueError(f"channel_mult is {channel_mult!r}; give a whole number >= 1 for each level")
    import_comfyui()
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    levels = len(channel_mult)
    unet = UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=WIDTH,
        channel_mult=list(channel_mult),
        num_res_blocks=[1] * levels,
        use_spatial_transformer=True,
        transformer_depth=[1] * levels,
        transformer_depth_output=[1] * (2 * levels),
        transformer_depth_middle=1,
        context_dim=768,
        num_heads=8,
        legacy=False,
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    )
    ends = ("out_layers.3", "proj_out", "out.2")  # of residual branches, and of the whole
    initialise(unet, [module for name, module in unet.named_modules() if name.endswith(ends)])
    return unet


def predict_noise(unet: nn.Module, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
    """The noise in `x`.

    Args:
        x: noisy latents (B, 4, h, w), unit variance.
        t: timesteps (B,), 0..999, whole or not.
        context: encoded texts (B, n, 768).
    """
    noise: Tensor = unet(x, t, context=context, transformer_options={})
    return noise


def noise_and_middle(unet: nn.Module, x: Tensor, t: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """The noise in `x`, and what the middle block found (B, width, h', w') in the coarsest places."""
    found: list[Tensor] = []
    # Of the last module: the host calls those in a block one by one.
    with unet.middle_block[-1].register_forward_hook(lambda _, inputs, output: found.append(output)):
        return predict_noise(unet, x, t, context), found[0]
