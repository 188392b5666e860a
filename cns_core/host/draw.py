"""Drawing with the host's own sampler: previews while training, class images for the prior, benches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.sample
import torch
from torch import Tensor

from .model import model_family
from .types import Clip, Loaded, Model


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn."""

    steps: int = 20
    cfg: float = 7.0
    sampler: str = "euler"
    scheduler: str = "normal"


def draw(
    loaded: Loaded,
    prompts: Sequence[str],
    size: tuple[int, int],
    seeds: Sequence[int],
    sampling: Sampling | None = None,
) -> Tensor:
    """One picture for each prompt, `(B, H, W, 3)` float32 in [0, 1], all in one batch.

    Args:
        prompts: of equally many sections of the text encoder.
        size: height and width in pixels.
        seeds: of each picture's first noise; the global generator is left alone.
        sampling: the defaults where it is None.
    """
    return draw_conditioned(loaded, conditioning(loaded.clip, prompts), size, seeds, sampling)


def draw_conditioned(
    loaded: Loaded,
    positive: list[Any],
    size: tuple[int, int],
    seeds: Sequence[int],
    sampling: Sampling | None = None,
) -> Tensor:
    """As `draw`, of conditioning that is made already: for prompts with areas, say."""
    latent = _sampled(loaded.model, loaded.clip, positive, size, seeds, sampling or Sampling())
    return loaded.vae.decode(latent)[..., :3].clamp(0, 1)


def draw_latents(
    model: Model,
    clip: Clip,
    prompts: Sequence[str],
    size: tuple[int, int],
    seeds: Sequence[int],
    how: Sampling,
) -> Tensor:
    """As `draw`, but the scaled latents `(B, C, h, w)` that the U-Net works in, float32 on the CPU."""
    latent = _sampled(model, clip, conditioning(clip, prompts), size, seeds, how)
    return model.model.process_latent_in(latent).float().cpu().clone()  # type: ignore[no-any-return]


def _sampled(
    model: Model,
    clip: Clip,
    positive: list[Any],
    size: tuple[int, int],
    seeds: Sequence[int],
    how: Sampling,
) -> Tensor:
    factor = model_family(model).latent_factor
    shape = (model.model.latent_format.latent_channels, size[0] // factor, size[1] // factor)
    noise = torch.stack(
        [torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds]
    )
    latent: Tensor = comfy.sample.sample(
        model,
        noise,
        how.steps,
        how.cfg,
        how.sampler,
        how.scheduler,
        positive,
        conditioning(clip, [""]),
        torch.zeros_like(noise),
        disable_pbar=True,
        seed=seeds[0],
    )
    return latent


def without_guidance(model: Model) -> Model:
    """A clone without what other nodes have made of classifier-free guidance."""
    clone = model.clone()
    clone.model_options = {n: o for n, o in clone.model_options.items() if not n.startswith("sampler_")}
    return clone


def conditioning(clip: Clip, prompts: Sequence[str]) -> list[Any]:
    """As the stock text encode node gives it, for several prompts in one batch."""
    encoded = [clip.encode_from_tokens_scheduled(clip.tokenize(prompt))[0] for prompt in prompts]
    extra = dict(encoded[0][1])
    if extra.get("pooled_output") is not None:
        extra["pooled_output"] = torch.cat([more["pooled_output"] for _, more in encoded])
    return [[torch.cat([cross for cross, _ in encoded]), extra]]
