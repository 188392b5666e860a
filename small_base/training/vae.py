"""The VAE: ComfyUI's TAESD, plain convolutions between pictures and latents, eight times smaller a side.

Latents here are the encoder's plain output, and this is what the U-Net sees in ComfyUI too: the host
multiplies its VAE's latents by 0.18215 on the way into the U-Net, and `vae_scale` has the host's VAE
divide by the same number before (and the other way round when it decodes). In a workflow a latent of this
VAE is 1 / 0.18215 times ours.

A state dict of `Vae` is a checkpoint's part "first_stage_model." without that prefix.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from devtools.in_process import import_comfyui

from .host_layers import initialise

PICTURE_TO_LATENT = 8
SD15_LATENT_SCALE = 0.18215  # the host's own factor between a VAE's latents and the U-Net's


class Vae(nn.Module):
    """Encoder and decoder under the names they have in a checkpoint, untrained."""

    def __init__(self) -> None:
        super().__init__()
        import_comfyui()
        from comfy.taesd.taesd import Decoder, Encoder

        self.taesd_encoder = Encoder()
        self.taesd_decoder = Decoder()
        initialise(self)
        # Buffers for the host's sake: they cancel out its factor and change nothing here.
        self.register_buffer("vae_scale", torch.tensor(SD15_LATENT_SCALE))
        self.register_buffer("vae_shift", torch.tensor(0.0))

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W), 0..1 -> latents (B, 4, H / 8, W / 8) as the U-Net sees them.

        H and W have to be multiples of 8.
        """
        sides = tuple(images.shape[-2:])
        if any(side % PICTURE_TO_LATENT for side in sides):
            raise ValueError(
                f"pictures of {sides} pixels: crop both sides to multiples of {PICTURE_TO_LATENT}"
            )
        latents: Tensor = self.taesd_encoder(images)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, 4, h, w) as the U-Net sees them -> pictures (B, 3, 8 h, 8 w), clamped to 0..1.

        To train the decoder call `taesd_decoder`: the same without the clamp, which has no gradient outside.
        """
        return self.taesd_decoder(latents).clamp(0, 1)
