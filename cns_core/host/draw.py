"""Drawing inside a node: previews while training and class images for the prior, with the host's own
sampler.
"""

from __future__ import annotations

from typing import Any

import comfy.sample
import torch
from torch import Tensor

SAMPLER, SCHEDULER = "euler", "normal"


def draw(
    model: Any,
    clip: Any,
    vae: Any,
    prompt: str,
    size: tuple[int, int],
    seed: int,
    steps: int = 20,
    cfg: float = 7.0,
) -> Tensor:
    """One picture `(1, H, W, 3)` float32 in [0, 1] of `size` (H, W). Uses its own generator, never the
    global one.
    """
    positive = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
    negative = clip.encode_from_tokens_scheduled(clip.tokenize(""))
    channels = model.model.latent_format.latent_channels
    shape = (1, channels, size[0] // 8, size[1] // 8)
    noise = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))
    latent = comfy.sample.sample(
        model,
        noise,
        steps,
        cfg,
        SAMPLER,
        SCHEDULER,
        positive,
        negative,
        torch.zeros(shape),
        disable_pbar=True,
        seed=seed,
    )
    return vae.decode(latent)[..., :3].clamp(0, 1)
