"""The VAE in TAESD's layout: plain convolutions between pictures and latents, eight times smaller a side.

Latents here are the encoder's plain output, and this is what the U-Net sees in ComfyUI too: the host
multiplies its VAE's latents by 0.18215 on the way into the U-Net, and `vae_scale` has the host's VAE
divide by the same number before (and the other way round when it decodes). In a workflow a latent of this
VAE is 1 / 0.18215 times ours.

A state dict of `Vae` is a checkpoint's part "first_stage_model." without that prefix.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LATENT_CHANNELS = 4
PICTURE_TO_LATENT = 8
SD15_LATENT_SCALE = 0.18215  # the host's own factor between a VAE's latents and the U-Net's

_WIDTH = 64
_LATENT_LIMIT = 3.0


class Vae(nn.Module):
    """Encoder and decoder under the names they have in a checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.taesd_encoder = Encoder()
        self.taesd_decoder = Decoder()
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
        return self.taesd_encoder(images)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, 4, h, w) as the U-Net sees them -> pictures (B, 3, 8 h, 8 w), clamped to 0..1.

        To train the decoder call `taesd_decoder`: the same without the clamp, which has no gradient outside.
        """
        return self.taesd_decoder(latents).clamp(0, 1)


class Encoder(nn.Sequential):
    """Pictures (B, 3, H, W), 0..1 -> latents (B, 4, H / 8, W / 8)."""

    def __init__(self) -> None:
        modules: list[nn.Module] = [_conv(3), _Block()]
        for _ in range(3):
            modules += [_conv(_WIDTH, stride=2, bias=False), _Block(), _Block(), _Block()]
        super().__init__(*modules, _conv(_WIDTH, LATENT_CHANNELS))


class Decoder(nn.Sequential):
    """Latents (B, 4, h, w) -> pictures (B, 3, 8 h, 8 w), about 0..1, not clamped."""

    def __init__(self) -> None:
        modules: list[nn.Module] = [_SoftLimit(), _conv(LATENT_CHANNELS), nn.ReLU()]
        for _ in range(3):
            modules += [_Block(), _Block(), _Block(), nn.Upsample(scale_factor=2), _conv(_WIDTH, bias=False)]
        super().__init__(*modules, _Block(), _conv(_WIDTH, 3))


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(_WIDTH), nn.ReLU(), _conv(_WIDTH), nn.ReLU(), _conv(_WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


class _SoftLimit(nn.Module):
    """Keeps what a sampler overshoots out of the decoder."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / _LATENT_LIMIT) * _LATENT_LIMIT


def _conv(channels_in: int, channels_out: int = _WIDTH, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=bias)
