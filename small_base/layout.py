"""The base model's sizes, and how its networks make one checkpoint that ComfyUI takes for an SD 1.5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .training.text_encoder import full_text_state
from .training.vae import PICTURE_TO_LATENT
from .world.placing import FULL_VARIETY, PAIRS, Variety
from .world.wording import FULL_WORDING, Shares

UNET_PREFIX = "model.diffusion_model."
TEXT_PREFIX = "cond_stage_model.transformer.text_model."
VAE_PREFIX = "first_stage_model."


@dataclass(frozen=True)
class BaseSize:
    """One size of base model."""

    name: str
    picture: int  # pixels a side
    channel_mult: tuple[int, ...]  # of its U-Net
    text_layers: int = 1  # trained ones
    # What its U-Net is trained on:
    variety: Variety = FULL_VARIETY  # poses
    shares: Shares = FULL_WORDING  # wording
    pairs: float = PAIRS  # share of pictures of two things

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(4, h, w) of one picture."""
        side = self.picture // PICTURE_TO_LATENT
        return 4, side, side


# Two CPU cores show a U-Net 100,000 pictures an hour, too few for every pose of every thing. Where frames
# fill whole places of the latents, a thing's latents are the same wherever it stands. Two names mostly come
# in the order in which one reads: a text encoder that only looks back cannot say of the first where it is.
_CALM = Variety(alone=(0.75, 0.75), in_pairs=(0.5, 0.5), tilt=0.0, mirrored=0.0, off_centre=0.08, cells=8)
_PLAIN = Shares(category=0.05, size=0.0, relation=0.5, backwards=0.1, filler=0.02)

SIZES = {
    "s": BaseSize("s", picture=64, channel_mult=(1,), variety=_CALM, shares=_PLAIN, pairs=0.6),
    "m": BaseSize("m", picture=128, channel_mult=(1, 1)),
}


def full_checkpoint(
    unet_state: Mapping[str, Tensor],
    vae_state: Mapping[str, Tensor],
    text_state: Mapping[str, Tensor],
    used_ids: Sequence[int] | None = None,
) -> dict[str, Tensor]:
    """Every tensor of the checkpoint, by its name in the host, in an order that depends on the names alone.

    U-Net and text encoder are fp16. The VAE stays fp32: it is small, and what the U-Net was trained on are
    its exact latents.

    Args:
        unet_state: of a `UNet`.
        vae_state: of a `Vae`, with its two scalars.
        text_state: of a `TextEncoder`.
        used_ids: what the text encoder was made with.
    """
    parts = (
        (UNET_PREFIX, unet_state, torch.float16),
        (TEXT_PREFIX, full_text_state(text_state, used_ids), torch.float16),
        (VAE_PREFIX, vae_state, torch.float32),
    )
    checkpoint = {
        prefix + name: state[name].detach().to("cpu", dtype).contiguous()
        for prefix, state, dtype in parts
        for name in sorted(state)
    }
    overflown = [name for name, tensor in checkpoint.items() if not tensor.isfinite().all()]
    if overflown:
        raise ValueError(
            f"not finite in the checkpoint: {', '.join(overflown[:5])} ({len(overflown)} in all); "
            "the training diverged, or a weight is beyond fp16's 65504"
        )
    return checkpoint
