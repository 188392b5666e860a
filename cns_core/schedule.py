"""Noise levels and learning rates over time."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi
from typing import Literal

import torch
from torch import Tensor

PredictionType = Literal["epsilon", "v"]


@dataclass(frozen=True)
class NoiseLevels:
    """A discrete variance-preserving diffusion:
    `z_t = alpha_t z_0 + sigma_t noise`, `alpha_t^2 + sigma_t^2 = 1`.

    alphas_cumprod: `(T,)` float32, alpha_t^2.
    prediction_type: what the model itself predicts.
    """

    alphas_cumprod: Tensor
    prediction_type: PredictionType

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    def _factors(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        squared = self.alphas_cumprod.to(like.device)[t].reshape(-1, *[1] * (like.ndim - 1))
        return squared.sqrt(), (1 - squared).sqrt()

    def add_noise(self, z0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self._factors(t, z0)
        return alpha * z0 + sigma * noise

    def target(self, z0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the model should predict: the noise, or `v = alpha_t noise - sigma_t z_0` (2202.00512)."""
        if self.prediction_type == "epsilon":
            return noise
        alpha, sigma = self._factors(t, z0)
        return alpha * noise - sigma * z0

    def prediction(self, z_t: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
        """What the model predicted, from the clean latents that samplers make of it.

        Args:
            z_t: noised latents `(B, C, h, w)`.
            denoised: what is left of them without the noise.
            sigma: noise over signal, `(B, 1, 1, 1)`.
        """
        whole = (sigma.square() + 1).sqrt()  # 1 / alpha_t
        if self.prediction_type == "epsilon":
            return (z_t * whole - denoised) / sigma
        return (z_t / whole - denoised) * whole / sigma

    def min_snr_weight(self, t: Tensor, gamma: float) -> Tensor:
        """min-SNR weights `(B,)` (2303.09556, with its form for v); all 1 for gamma 0."""
        if gamma == 0:
            return torch.ones(len(t), device=t.device)
        squared = self.alphas_cumprod.to(t.device)[t]
        snr = squared / (1 - squared)
        clipped = snr.clamp(max=gamma)
        return clipped / snr if self.prediction_type == "epsilon" else clipped / (snr + 1)


def learning_rate_factor(step: int, steps: int, schedule: str, warmup_steps: int) -> float:
    """Factor on the learning rate at `step` (from 0): linear warm-up, then constant or half a cosine."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + cos(pi * progress))
