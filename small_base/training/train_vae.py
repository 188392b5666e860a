"""`vae`: trains the VAE until pictures of the world come back sharp, also from latents that are a little off.

A U-Net never draws latents exactly. Without noise in training the decoder may make something else of latents
0.1 beside the true ones; a code that is read through noise has to put things that look alike near each other.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layout import BaseSize
from ..world.pictures import PictureStream
from ..world.world import World
from .contrastive import Tutor
from .learner import Learner
from .loop import stretch_seed
from .picture_trainer import PictureTrainer
from .precision import mixed_precision
from .samples import save_sheet
from .vae import Vae

_UNIT_WEIGHT = 0.01
_EDGE_WEIGHT = 0.5
_LOOKS_WEIGHT = 0.01
_NOISY = 0.75  # the share of pictures whose latents get noise,
_MOST_NOISE = 0.3  # of up to this deviation; latents have 1
_TEST_SEED = 1_000_003
_TEST_NOISE = 0.2
_TEST_PICTURES = 64


class VaeTrainer(PictureTrainer):
    """Squared error of pixels, of their differences and of what a tutor sees;
    latents pulled to unit variance.
    """

    def __init__(
        self,
        size: BaseSize,
        world: World,
        tutor: Tutor,
        device: torch.device,
        *,
        seed: int,
        batch: int,
        rate: float,
        decoder_only: bool = False,
    ) -> None:
        """
        Args:
            tutor: tells how things look: the one that the text encoder was trained beside.
            decoder_only: leave the averaged encoder, and so the latents, exactly as they are: a U-Net that
                was trained on them stays right.
        """
        self._decoder_only = decoder_only
        self._tutor = tutor.to(device).requires_grad_(False).eval()
        self._generator = torch.Generator(device).manual_seed(seed)
        self._device, self._batch = device, batch
        torch.manual_seed(seed)
        self.vae = Vae().to(device, memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(self.vae.parameters(), lr=rate, betas=(0.9, 0.99))
        learner = Learner({"vae": self.vae}, "vae", optimizer, 0.999)
        pictures = PictureStream(world, size.picture, device, seed, half_in=size.variety)
        super().__init__(f"vae-{size.name}", seed, pictures, learner)
        self._test = PictureStream(world, size.picture, device, _TEST_SEED).batch(_TEST_PICTURES).images

    def begin(self, index: int) -> None:
        """Draw other pictures and other noise than in earlier stretches."""
        super().begin(index)
        if self._decoder_only:
            self.learner.average.adopt()  # it is the averaged encoder that makes latents
            self.vae.taesd_encoder.requires_grad_(False)
        self._generator.manual_seed(stretch_seed(self.seed, index))

    def step(self, index: int, rate: float) -> dict[str, Tensor]:
        """One batch of new pictures."""
        images = self.pictures.batch(self._batch).images.contiguous(memory_format=torch.channels_last)
        with mixed_precision(self._device):
            latents = self.vae.taesd_encoder(images)
            drawn = self.vae.taesd_decoder(latents + a_little_off(latents, self._generator))
            looks = _difference(self._tutor.maps(drawn), self._tutor.maps(images))
        latents, drawn = latents.float(), drawn.float()
        pixels = F.mse_loss(drawn, images)
        edges = sum(F.mse_loss(drawn.diff(dim=side), images.diff(dim=side)) for side in (-1, -2))
        # Any scale would do for the decoder, but the noise schedule of the U-Net expects this one.
        mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        unit = (mean**2 + (deviation - 1) ** 2).mean()
        loss = pixels + _EDGE_WEIGHT * edges + _LOOKS_WEIGHT * looks + _UNIT_WEIGHT * unit
        self.learner.update(loss, index, rate)
        return {"mse": pixels, "edges": edges, "looks": looks, "unit": unit}

    @torch.no_grad()
    def report(self, folder: Path, index: int) -> dict[str, float]:
        """PSNR on pictures it is never trained on, and a sheet: each beside what comes back of it, and what
        comes back of its latents with noise of a deviation of 0.2.
        """
        generator = torch.Generator().manual_seed(_TEST_SEED)
        back, off = [], []
        with self.learner.average.applied():
            for part in self._test.split(16):
                latents = self.vae.encode(part)
                noise = _TEST_NOISE * torch.randn(latents.shape, generator=generator).to(latents)
                back.append(self.vae.decode(latents))
                off.append(self.vae.decode(latents + noise))
        clean, noisy = torch.cat(back), torch.cat(off)
        shown = torch.stack((self._test[:24], clean[:24], noisy[:24]), 1).flatten(0, 1)
        save_sheet(folder / "samples" / f"{self.name}-{index:07d}.png", shown, 9, zoom=2)
        return {"psnr": mean_psnr(clean, self._test), "psnr_with_noise": mean_psnr(noisy, self._test)}


def a_little_off(latents: Tensor, generator: torch.Generator) -> Tensor:
    """Noise for latents (B, 4, h, w), a part of them left without, as a U-Net is off by more or less."""
    chance, strength = torch.rand(2, len(latents), 1, 1, 1, generator=generator, device=latents.device)
    noise = torch.randn(latents.shape, generator=generator, device=latents.device)
    return noise * (chance < _NOISY) * strength * _MOST_NOISE


def _difference(ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
    """Squared distance of features of length one in every place, a mean over places, summed over stages."""
    pairs = zip(ours, theirs, strict=True)
    return sum(
        (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(1).mean()
        for a, b in pairs
    )


def mean_psnr(drawn: Tensor, true: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of (B, 3, H, W) pictures in [0, 1], averaged over the pictures."""
    error = (drawn.float() - true.float()).square().mean((1, 2, 3)).clamp_min(1e-10)
    return float((-10 * error.log10()).mean())
