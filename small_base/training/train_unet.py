"""`unet`: trains the U-Net on latents of the world, with the text encoder and the VAE frozen."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..judge.judge import resized
from ..layout import BaseSize
from ..world.pictures import PictureStream
from ..world.prompts import evaluation_prompts
from ..world.world import World
from .contrastive import PLACE_WIDTH, PLACES_STAGE, Tutor
from .learner import Learner
from .loop import stretch_seed
from .matrix_optimizer import MatrixOptimizer
from .picture_trainer import PictureTrainer
from .precision import mixed_precision
from .samples import save_sheet
from .sampling import noise_schedule, sample
from .strangers import Strangers
from .text_encoder import TextEncoder
from .tokenizer import Tokenizer
from .unet import new_unet, noise_and_middle, predict_noise
from .vae import Vae

_CLEAR_SNR, _NOISY_SNR = 5.0, 0.02  # beyond these a noise level counts less and less
_THERE_WEIGHT = 0.1
_CAPTION_DROPOUT = 0.1
_STRANGE = 0.375  # share of pictures that show what no word names
_SHEET = 64
_FILLED_AT_ONCE = 256


class LatentPool:
    """What is learned from, of the newest pictures: each is trained on several times, then replaced.

    Drawing and encoding a picture costs a fair part of a training step, while another noise level of the same
    picture is nearly as good as another picture.
    """

    def __init__(
        self,
        pictures: PictureStream,
        strangers: Strangers,
        vae: Vae,
        text: TextEncoder,
        tutor: Tutor,
        tokenizer: Tokenizer,
        capacity: int,
    ) -> None:
        self._pictures, self._strangers = pictures, strangers
        self._vae, self._text, self._tutor = vae, text, tutor
        self._tokenizer, self._capacity = tokenizer, capacity
        # Of each picture: latents (4, h, w), encoded caption (77, 768), what the tutor finds in its places.
        self._kept: tuple[Tensor, Tensor, Tensor] | None = None
        self._seen = 0

    def restart(self, seed: int) -> None:
        """Empty the pool and draw other pictures from here on."""
        self._seen = 0
        self._pictures.seed(seed)
        self._strangers.seed(seed)

    def __len__(self) -> int:
        return min(self._seen, self._capacity)

    @torch.no_grad()
    def add(self, count: int) -> None:
        """Draw, caption and encode `count` new pictures; the oldest leave once the pool is full."""
        strange = round(_STRANGE * count)
        batch = self._pictures.batch(count - strange)
        images, device = batch.images, batch.images.device
        with mixed_precision(device):
            contexts = self._text(self._tokenizer(batch.captions).to(device))
        if strange:
            pictures, encoded = self._strangers.batch(strange)
            images, contexts = torch.cat([images, pictures]), torch.cat([contexts, encoded])
        with mixed_precision(device):
            places = self._tutor.maps(resized(images))[PLACES_STAGE].float()
        normed = F.layer_norm(places.movedim(1, -1), places.shape[1:2]).movedim(-1, 1).bfloat16()
        new = (self._vae.encode(images), contexts.bfloat16(), normed)
        if self._kept is None:
            self._kept = tuple(one.new_empty(self._capacity, *one.shape[1:]) for one in new)
        rows = torch.arange(self._seen, self._seen + count, device=device) % self._capacity
        for kept, one in zip(self._kept, new, strict=True):
            kept[rows] = one
        self._seen += count

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A random batch, float32: latents (B, 4, h, w), contexts (B, 77, 768), places (B, c, 8, 8) with the
        channels of each place normalised.
        """
        if self._kept is None:
            raise RuntimeError("the pool is empty: add pictures first")
        rows = torch.randint(len(self), (count,), generator=generator, device=self._kept[0].device)
        latents, contexts, places = (kept[rows].float() for kept in self._kept)
        return latents, contexts, places


class UNetTrainer(PictureTrainer):
    """Noise prediction with caption drop-out; what counts is the averaged weights.

    Errors of the noise are small where there is much of it, though there it is the text that decides what is
    drawn. With min-SNR weights (arXiv 2303.09556) half of a gradient comes from levels where the text tells
    one picture's error by 7 %. So levels are weighted as by v prediction, where each counts about the same
    (arXiv 2303.00848 compares such weightings), less so at both ends.

    What the middle block finds in each place is also to tell what the text encoder's tutor sees there in the
    clean picture (arXiv 2410.06940): in noise, that can only come from the text.
    """

    def __init__(
        self,
        size: BaseSize,
        world: World,
        strangers: Strangers,
        vae: Vae,
        text: TextEncoder,
        tutor: Tutor,
        tokenizer: Tokenizer,
        device: torch.device,
        *,
        seed: int,
        batch: int,
        rate: float,
        pool: int,
        fresh: float,
        compiled: bool,
    ) -> None:
        self._size, self._device, self._batch = size, device, batch
        self._fresh = max(1, round(fresh * batch))
        torch.manual_seed(seed)
        self.unet = new_unet(size.channel_mult).to(device, memory_format=torch.channels_last)
        whole = partial(noise_and_middle, self.unet)
        self._predict = torch.compile(whole) if compiled else whole
        width = self.unet.middle_block[0].out_layers[0].num_channels
        self._seen_there = nn.Sequential(
            nn.Conv2d(width, width, 1), nn.SiLU(), nn.Conv2d(width, PLACE_WIDTH, 1)
        ).to(device)
        networks = {"unet": self.unet, "seen_there": self._seen_there}
        parameters = [parameter for network in networks.values() for parameter in network.parameters()]
        optimizer = MatrixOptimizer(parameters, rate=rate)
        pictures = PictureStream(
            world,
            size.picture,
            device,
            seed,
            pairs=size.pairs,
            variety=size.variety,
            shares=size.shares,
        )
        learner = Learner(networks, "unet", optimizer, 0.997)
        super().__init__(f"unet-{size.name}", seed, pictures, learner)
        self._generator = torch.Generator(device).manual_seed(seed)
        self._vae, self._text, self._tokenizer, self._world = vae, text, tokenizer, world
        self._pool = LatentPool(pictures, strangers, vae, text, tutor, tokenizer, pool)
        self._first_pictures = min(pool, 64 * batch)
        kept = noise_schedule().to(device)
        snr = kept / (1 - kept)
        self._signal, self._sigma = kept.sqrt(), (1 - kept).sqrt()
        self._weight = (1 + snr).clamp(max=_CLEAR_SNR) / (snr + _NOISY_SNR)
        with torch.no_grad():
            self._without_text = text(tokenizer([""]).to(device))

    def begin(self, index: int) -> None:
        """Fill the pool, which is not saved, with other pictures than in earlier stretches."""
        seed = stretch_seed(self.seed, index)
        self._generator.manual_seed(seed)
        self._pool.restart(seed)
        for first in range(0, self._first_pictures, _FILLED_AT_ONCE):
            self._pool.add(min(_FILLED_AT_ONCE, self._first_pictures - first))

    def step(self, index: int, rate: float) -> dict[str, Tensor]:
        """One batch at random noise levels."""
        self._pool.add(self._fresh)
        clean, contexts, places = self._pool.draw(self._batch, self._generator)
        kept = (
            torch.rand(len(clean), 1, 1, generator=self._generator, device=self._device) >= _CAPTION_DROPOUT
        )
        contexts = torch.where(kept, contexts, self._without_text)
        t = self._noise_levels(len(clean))
        noise = torch.randn(clean.shape, generator=self._generator, device=self._device)
        noisy = self._signal[t].view(-1, 1, 1, 1) * clean + self._sigma[t].view(-1, 1, 1, 1) * noise
        with mixed_precision(self._device):
            predicted, middle = self._predict(noisy, t, contexts)
            seen = self._seen_there(middle)
        errors = F.mse_loss(predicted.float(), noise, reduction="none").mean((1, 2, 3))
        loss, there = (self._weight[t] * errors).mean(), F.mse_loss(seen.float(), places)
        norm = self.learner.update(loss + _THERE_WEIGHT * there, index, rate)
        return {"loss": loss, "mse": errors.mean(), "there": there, "gradient": norm}

    def _noise_levels(self, count: int) -> Tensor:
        """(B,) timesteps, one from each B-th of them: a batch's loss then varies less."""
        share = torch.rand(count, generator=self._generator, device=self._device)
        share = (torch.arange(count, device=self._device) + share) / count
        return (share * len(self._sigma)).long().clamp(max=len(self._sigma) - 1)

    @torch.no_grad()
    def report(self, folder: Path, index: int) -> dict[str, float]:
        """A sheet of samples for the first evaluation prompts, and the prompts beside it."""
        prompts = [prompt.text for prompt in evaluation_prompts(self._world, _SHEET)]
        contexts = self._text(self._tokenizer(prompts).to(self._device))
        with self.learner.average.applied(), mixed_precision(self._device):
            predict = partial(predict_noise, self.unet)
            latents = sample(
                predict, contexts, self._without_text, self._size.latent_shape, seeds=range(_SHEET), steps=20
            )
        images = torch.cat([self._vae.decode(part) for part in latents.split(16)])
        path = folder / "samples" / f"{self.name}-{index:07d}.png"
        save_sheet(path, images, 8, zoom=2 if self._size.picture <= 64 else 1)
        path.with_suffix(".txt").write_text("\n".join(prompts) + "\n", encoding="utf-8")
        return {"sheet_spread": float(images.std())}
