"""Pictures to the scaled latents the U-Net works in, encoded once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..concept import Concept
from ..framing import centred
from ..images import fit
from ..priors import KeptPool, Size
from ..training import LatentImage
from .model import model_family
from .types import Loaded, OnProgress


def encode_pixels(loaded: Loaded, pixels: Tensor) -> Tensor:
    """`(B, H, W, 3)` to scaled latents `(B, C, h, w)`, float32 on the CPU.
    ValueError when the VAE is not the MODEL's.
    """
    with torch.no_grad():  # nodes run in inference mode, other callers may not
        latent = loaded.vae.encode(pixels[..., :3])
    model = loaded.model.model
    channels, factor = model.latent_format.latent_channels, model_family(loaded.model).latent_factor
    if latent.ndim != 4 or latent.shape[1] != channels or latent.shape[2] * factor != pixels.shape[1]:
        raise ValueError(
            f"This VAE makes latents of shape {tuple(latent.shape)} of pictures {tuple(pixels.shape)}; "
            f"the U-Net needs {channels} channels and sides divided by {factor}. "
            "Connect the VAE that belongs to the MODEL."
        )
    if not bool(torch.isfinite(latent).all()):
        raise ValueError(
            "This VAE makes numbers of a picture that are not finite, as SDXL's own does in float16. Start "
            "ComfyUI with --fp32-vae or --bf16-vae, or connect a VAE that is mended for float16."
        )
    return model.process_latent_in(latent).float().cpu().clone()  # type: ignore[no-any-return]


def encode_concept(loaded: Loaded, concept: Concept, on_progress: OnProgress) -> tuple[LatentImage, ...]:
    """All training images of a concept, masks brought to latent size.

    `on_progress(done, total)` is called after each and may raise to stop.
    """
    images = []
    for number, image in enumerate(concept.images, 1):
        latents = encode_pixels(loaded, image.pixels[None])[0]
        mask = None
        if image.mask is not None:
            cells = (latents.shape[1], latents.shape[2])
            mask = torch.nn.functional.adaptive_avg_pool2d(image.mask[None, None], cells)[0]
        class_captions = tuple(map(concept.class_caption, image.captions))
        images.append(LatentImage(latents, image.captions, class_captions, mask, image.framing))
        on_progress(number, len(concept.images))
    return tuple(images)


def encode_fitted(
    loaded: Loaded, pixels: Sequence[Tensor], prompt: str, sizes: set[Size], on_progress: OnProgress
) -> dict[Size, KeptPool]:
    """Pictures `(H, W, 3)` that show what a prompt says, fitted to each of these latent sizes `(h, w)`;
    `on_progress` as above.
    """
    factor = model_family(loaded.model).latent_factor
    pools, done, total = {}, 0, len(sizes) * len(pixels)
    for height, width in sorted(sizes):
        latents, framings, size = [], [], (height * factor, width * factor)
        for picture in pixels:
            fitted, _ = fit(picture[..., :3], None, size)
            latents.append(encode_pixels(loaded, fitted[None]))
            framings.append(centred((picture.shape[0], picture.shape[1]), size))
            done += 1
            on_progress(done, total)
        pools[height, width] = KeptPool(torch.cat(latents), framings, [prompt] * len(framings))
    return pools
