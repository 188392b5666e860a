"""SD's noise schedule, and ComfyUI's DPM-Solver++ (2M) on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from devtools.in_process import import_comfyui

TIMESTEPS = 1000
_FIRST_BETA, _LAST_BETA = 0.00085, 0.012


def noise_schedule() -> Tensor:
    """(1000,) float32, cumulated alphas a: latents at t are sqrt(a[t]) * clean + sqrt(1 - a[t]) * noise."""
    betas = torch.linspace(_FIRST_BETA**0.5, _LAST_BETA**0.5, TIMESTEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


@torch.no_grad()
def sample(
    unet: Callable[[Tensor, Tensor, Tensor], Tensor],
    context: Tensor,
    uncond: Tensor,
    latent_shape: Sequence[int],
    *,
    seeds: Sequence[int],
    steps: int = 25,
    cfg: float = 4.0,
) -> Tensor:
    """Draw one picture's latents for each text: (B, 4, h, w) float32 on the texts' device.

    Args:
        unet: predicts the noise from (latents (B, 4, h, w), timesteps (B,), context (B, n, 768)). Autocast is
            the caller's.
        context: encoded texts (B, n, 768).
        uncond: the encoded empty text, (1, n, 768) or (B, n, 768).
        latent_shape: (4, h, w) of one picture.
        seeds: B of them. A picture depends on its own alone, not on its place in the batch: the noise is
            drawn on the CPU.
        steps: calls of the network, 1..1000; from about 45 on somewhat fewer are made.
        cfg: how far to go from `uncond` to `context`: 1 is `context` alone (and costs half).
    """
    if len(seeds) != len(context):
        raise ValueError(f"{len(seeds)} seeds for {len(context)} texts; give one for each")
    if not 1 <= steps <= TIMESTEPS:
        raise ValueError(f"{steps} steps; give 1 to {TIMESTEPS}")
    import_comfyui()
    from comfy.k_diffusion.sampling import sample_dpmpp_2m

    guided = cfg != 1.0
    texts = torch.cat((context, uncond.expand_as(context))) if guided else context
    timesteps = chosen_timesteps(steps)
    kept = noise_schedule()[timesteps].to(context.device)
    sigmas = torch.cat([((1 - kept) / kept).sqrt(), kept.new_zeros(1)])
    remaining = iter(timesteps)

    def denoised(x: Tensor, sigma: Tensor) -> Tensor:
        """What is left of `x` (clean latents and sigma x noise)
        without the noise that the network finds in it.
        """
        wide = sigma.view(-1, 1, 1, 1)
        latents = x / (wide.square() + 1).sqrt()
        times = torch.full((len(texts),), next(remaining), device=x.device)
        noise = unet(torch.cat((latents, latents)) if guided else latents, times, texts).float()
        if guided:
            with_text, without = noise.chunk(2)
            noise = without + cfg * (with_text - without)
        return x - wide * noise

    latents = initial_noise(seeds, latent_shape).to(context.device)
    drawn: Tensor = sample_dpmpp_2m(denoised, latents * (sigmas[0].square() + 1).sqrt(), sigmas, disable=True)
    return drawn


def chosen_timesteps(steps: int) -> list[int]:
    """Where to call the network, from 999 down to 0, ever closer: the finest strides where detail is decided.

    Even strides leave the last one too long: the sampler then gives means of pictures, that is blurred ones.
    There are no timesteps between whole ones, so those that would be the same are one.
    """
    last = max(steps - 1, 1)
    chosen = {round((TIMESTEPS - 1) * (1 - index / last) ** 2) for index in range(steps)}
    return sorted(chosen, reverse=True)


def initial_noise(seeds: Sequence[int], latent_shape: Sequence[int]) -> Tensor:
    """(B, *latent_shape) float32 on the CPU, each picture's from its own seed."""
    shape = tuple(latent_shape)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
