"""SD's noise schedule, and a deterministic sampler on it: DPM-Solver++ (2M) on predicted noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

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
    guided = cfg != 1.0
    texts = torch.cat((context, uncond.expand_as(context))) if guided else context

    def noise_in(latents: Tensor, timestep: int) -> Tensor:
        if guided:
            latents = torch.cat((latents, latents))
        times = torch.full((len(latents),), timestep, device=latents.device)
        noise = unet(latents, times, texts).float()
        if not guided:
            return noise
        told, untold = noise.chunk(2)
        return untold + cfg * (told - untold)

    timesteps = chosen_timesteps(steps)
    kept = noise_schedule().double()[timesteps]
    signal, sigma = kept.sqrt().tolist(), (1 - kept).sqrt().tolist()
    half_log_snr = (0.5 * (kept / (1 - kept)).log()).tolist()

    latents = initial_noise(seeds, latent_shape).to(context.device)
    clean_before: Tensor | None = None
    for index, timestep in enumerate(timesteps):
        clean = (latents - sigma[index] * noise_in(latents, timestep)) / signal[index]
        if timestep == timesteps[-1]:
            break
        stride = half_log_snr[index + 1] - half_log_snr[index]
        if clean_before is None:
            target = clean
        else:
            # Second order: what changed over the last stride goes on to the middle of this one.
            ratio = stride / (half_log_snr[index] - half_log_snr[index - 1])
            target = clean + 0.5 * ratio * (clean - clean_before)
        shrink = sigma[index + 1] / sigma[index]
        latents = shrink * latents + (signal[index + 1] - shrink * signal[index]) * target
        clean_before = clean
    return clean


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
