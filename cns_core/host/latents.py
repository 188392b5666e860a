"""Pictures to the scaled latents the U-Net works in, encoded once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..concept import Concept
from ..images import fit
from ..training import LatentImage


def encode_pixels(model: Any, vae: Any, pixels: Tensor) -> Tensor:
    """`(B, H, W, 3)` to scaled latents `(B, C, H/8, W/8)`, float32 on the CPU."""
    with torch.no_grad():  # nodes run in inference mode, other callers may not
        latent = vae.encode(pixels[..., :3])
    channels = model.model.latent_format.latent_channels
    if latent.ndim != 4 or latent.shape[1] != channels or latent.shape[2] * 8 != pixels.shape[1]:
        raise ValueError(
            f"This VAE makes latents of shape {tuple(latent.shape)}; the U-Net needs {channels} channels at "
            "an eighth of the size. "
            "Connect the VAE that belongs to the MODEL."
        )
    return model.model.process_latent_in(latent).float().cpu().clone()


def encode_concept(model: Any, vae: Any, concept: Concept) -> tuple[LatentImage, ...]:
    """All training images of a concept, masks brought to latent size."""
    images = []
    for image in concept.images:
        latents = encode_pixels(model, vae, image.pixels[None])[0]
        mask = None
        if image.mask is not None:
            mask = torch.nn.functional.adaptive_avg_pool2d(image.mask[None, None], tuple(latents.shape[1:]))[
                0
            ]
        images.append(
            LatentImage(latents, image.captions, tuple(map(concept.class_caption, image.captions)), mask)
        )
    return tuple(images)


def class_latents(
    model: Any, vae: Any, pixels: Tensor, sizes: set[tuple[int, int]]
) -> dict[tuple[int, int], Tensor]:
    """Given class images `(B, H, W, 3)`, fitted to every latent size `(h, w)` that the concept uses."""
    pools = {}
    for size in sorted(sizes):
        fitted = torch.stack([fit(p[..., :3], None, (size[0] * 8, size[1] * 8))[0] for p in pixels])
        pools[size] = encode_pixels(model, vae, fitted)
    return pools
