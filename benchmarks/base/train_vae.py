"""`vae`: trains the VAE until pictures of the world come back sharp."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .layout import BaseSize
from .learner import Learner
from .picture_trainer import PictureTrainer
from .pictures import PictureStream
from .png import sheet, write_png
from .vae import Vae
from .world import World

_UNIT_WEIGHT = 0.01
_EDGE_WEIGHT = 0.5
_TEST_SEED = 1_000_003
_TEST_PICTURES = 64


class VaeTrainer(PictureTrainer):
    """Reconstruction by squared error of pixels and their differences; latents pulled to unit variance."""

    def __init__(
        self, size: BaseSize, world: World, device: torch.device, *, seed: int, batch: int, rate: float
    ) -> None:
        self._device, self._batch = device, batch
        torch.manual_seed(seed)
        self.vae = Vae().to(device, memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(self.vae.parameters(), lr=rate, betas=(0.9, 0.99))
        learner = Learner({"vae": self.vae}, "vae", optimizer, 0.999)
        super().__init__(f"vae-{size.name}", seed, PictureStream(world, size.picture, device, seed), learner)
        self._test = PictureStream(world, size.picture, device, _TEST_SEED).batch(_TEST_PICTURES).images

    def step(self, index: int, rate: float) -> dict[str, Tensor]:
        """One batch of new pictures."""
        images = self.pictures.batch(self._batch).images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16):
            latents = self.vae.taesd_encoder(images)
            drawn = self.vae.taesd_decoder(latents)
        latents, drawn = latents.float(), drawn.float()
        pixels = F.mse_loss(drawn, images)
        edges = sum(F.mse_loss(drawn.diff(dim=side), images.diff(dim=side)) for side in (-1, -2))
        # Any scale would do for the decoder, but the noise schedule of the U-Net expects this one.
        mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        unit = (mean**2 + (deviation - 1) ** 2).mean()
        loss = pixels + _EDGE_WEIGHT * edges + _UNIT_WEIGHT * unit
        self.learner.update(loss, index, rate)
        return {"mse": pixels, "edges": edges, "unit": unit}

    @torch.no_grad()
    def report(self, folder: Path, index: int) -> dict[str, float]:
        """PSNR on pictures it is never trained on, and a sheet of them beside what comes back."""
        with self.learner.average.applied():
            back = torch.cat([self.vae.decode(self.vae.encode(part)) for part in self._test.split(16)])
        pairs = torch.stack((self._test[:32], back[:32]), 1).flatten(0, 1)
        write_png(folder / "samples" / f"{self.name}-{index:07d}.png", sheet(pairs, 8, zoom=2))
        return {"psnr": mean_psnr(back, self._test)}


def mean_psnr(drawn: Tensor, true: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of (B, 3, H, W) pictures in [0, 1], averaged over the pictures."""
    error = (drawn.float() - true.float()).square().mean((1, 2, 3)).clamp_min(1e-10)
    return float((-10 * error.log10()).mean())
