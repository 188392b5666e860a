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
    """A discrete variance-preserving diffusion: `z_t = alpha_t z_0 + sigma_t noise` with `alpha_t^2 +
    sigma_t^2 = 1`.

    alphas_cumprod: `(T,)` float32, alpha_t^2. `prediction_type` is what the model itself predicts.
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
        """What the model should predict: the noise, or `v = alpha_t noise - sigma_t z_0` (Salimans and Ho,
        2202.00512).
        """
        if self.prediction_type == "epsilon":
            return noise
        alpha, sigma = self._factors(t, z0)
        return alpha * noise - sigma * z0

    def min_snr_weight(self, t: Tensor, gamma: float) -> Tensor:
        """min-SNR weights `(B,)` (Hang et al., 2303.09556, with the v form); all 1 for gamma 0."""
        if gamma == 0:
            return torch.ones(len(t), device=t.device)
        squared = self.alphas_cumprod.to(t.device)[t]
        snr = squared / (1 - squared)
        clipped = snr.clamp(max=gamma)
        return clipped / snr if self.prediction_type == "epsilon" else clipped / (snr + 1)


def learning_rate_factor(step: int, steps: int, schedule: str, warmup_steps: int) -> float:
    """Factor on the learning rate at `step` (0-based): linear warm-up, then constant or half a cosine down
    to 0.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + cos(pi * progress))
