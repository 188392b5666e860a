"""`judge`: a small CLIP that knows the whole world, what is held out included, as a `transformers` folder.

It measures what the base draws, and it is small enough to be shipped. Its texts come from `tutor`;
here its picture encoder learns to see what the tutor sees, in every place and in the whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layout import BaseSize
from ..training.contrastive import NAME_TEMPLATES, PLACE_WIDTH, name_loss, naming_accuracy, texts_of_names
from ..training.learner import Learner
from ..training.loop import stretch_seed
from ..training.picture_trainer import PictureTrainer
from ..training.precision import mixed_precision
from ..training.text_towers import JudgeTexts
from ..training.train_text import TRANSFORMED, TextTrainer
from ..training.train_vae import a_little_off
from ..training.vae import Vae
from ..world.pictures import Batch, PictureStream
from ..world.world import World
from .judge import (
    PICTURE_WIDTH,
    new_judge,
    picture_features,
    pictures_and_patches,
    resized,
    window,
    write_judge,
)

_TEST_SEED = 1_000_003
_WHOLE_WEIGHT = 5.0
_SOFT = 0.5  # the share of pictures that the judge sees as the VAE gives them back
_PARTS = 0.25  # the share of which both see only a window


def tutor_trainer(size: BaseSize, world: World, device: torch.device, **options: Any) -> TextTrainer:
    """What trains the judge's texts and its tutor."""
    name = f"tutor-{size.name}"
    return TextTrainer(name, JudgeTexts(world), world, device, transformed=TRANSFORMED, **options)


class JudgeTrainer(PictureTrainer):
    """Imitating the trained tutor, and naming what a picture shows among all names.

    What the base draws is as soft as its VAE, and of pairs the judge looks at enlarged parts too: so it is
    shown both, while the tutor sees them sharp.
    """

    def __init__(
        self,
        size: BaseSize,
        world: World,
        tutored: TextTrainer,
        vae: Vae,
        device: torch.device,
        *,
        seed: int,
        batch: int,
        rate: float,
    ) -> None:
        """`tutored` is what `tutor` trained; nothing of it is changed here."""
        self._device, self._batch, self._world, self._side = device, batch, world, size.picture
        self._vae = vae
        self._generator = torch.Generator(device).manual_seed(seed)
        self._tutor, self._scale = tutored.tutor.requires_grad_(False).eval(), tutored.scale
        texts = tutored.texts
        torch.manual_seed(seed)
        self._tokenizer = texts.tokenizer
        self.model = new_judge(self._tokenizer.end + 1).to(device)
        if device.type == "cpu":  # the fused attention's backward pass is four times as slow there
            self.model.set_attn_implementation("eager")
        self.model.text_model.load_state_dict(texts.encoder.state_dict())
        self.model.text_projection.load_state_dict(texts.project.state_dict())
        with torch.no_grad():
            self._names = [texts(texts_of_names(world, template)) for template in NAME_TEMPLATES]
            self._sharpness = self._scale()
        self._places = nn.Linear(PICTURE_WIDTH, PLACE_WIDTH).to(device)
        seeing = nn.ModuleList([self.model.vision_model, self.model.visual_projection])
        networks = {"seeing": seeing, "places": self._places}
        parameters = [*seeing.parameters(), *self._places.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        pictures = PictureStream(
            world, self._side, device, seed, transformed=TRANSFORMED, half_in=size.variety
        )
        learner = Learner(networks, "seeing", optimizer, 0.998)
        super().__init__(f"judge-{size.name}", seed, pictures, learner)

    def begin(self, index: int) -> None:
        """Draw other pictures and other noise than in earlier stretches."""
        super().begin(index)
        self._generator.manual_seed(stretch_seed(self.seed, index))

    def step(self, index: int, rate: float) -> dict[str, Tensor]:
        """One batch of new pictures."""
        batch = self.pictures.batch(self._batch)
        with mixed_precision(self._device):
            with torch.no_grad():
                sharp, seen = resized(batch.images), resized(self._softened(batch.images))
                parts = self._part_of(sharp, seen)
                wanted, _, places = self._tutor(sharp)
            pictures, patches = pictures_and_patches(self.model, seen)
            patches = self._places(patches)
        names = self.pictures.rng.choice(self._names)
        whole = 1 - (pictures * wanted).sum(-1).mean()
        there = _place_error(patches, places)
        # What a part shows is only known to the tutor.
        whole_ones = Batch(batch.images[parts:], batch.captions[parts:], batch.scenes[parts:])
        naming = name_loss(self._sharpness * pictures[parts:] @ names.T, whole_ones)
        self.learner.update(naming + _WHOLE_WEIGHT * whole + there, index, rate)
        named = naming_accuracy(pictures[parts:], names, whole_ones)
        return {"naming": naming, "whole": whole, "there": there, "named": named}

    def _softened(self, images: Tensor) -> Tensor:
        """Some of them as the VAE gives them back of latents that are a little off."""
        soft = torch.rand(len(images), generator=self._generator, device=self._device) < _SOFT
        latents = self._vae.encode(images[soft])
        result = images.clone()
        drawn = self._vae.decode(latents + a_little_off(latents, self._generator))
        result[soft] = drawn.to(images.dtype)
        return result

    def _part_of(self, *pictures: Tensor) -> int:
        """Replace each of the first few by a window of it, the same in all `pictures`; returns how many."""
        count = round(_PARTS * len(pictures[0]))
        for row in range(count):
            across, down = self.pictures.rng.random(), self.pictures.rng.random()
            for images in pictures:
                images[row] = window(images[row : row + 1], across, down)[0]
        return count

    @torch.no_grad()
    def report(self, folder: Path, index: int) -> dict[str, float]:
        """Write the averaged model as a folder; how often it names new pictures right among all names."""
        batch = PictureStream(self._world, self._side, self._device, _TEST_SEED).batch(512)
        with self.learner.average.applied():
            pictures = torch.cat([picture_features(self.model, part) for part in batch.images.split(64)])
            write_judge(folder / self.name, self.model, self._scale, self._tokenizer.files)
        return {"named_in_test": float(naming_accuracy(pictures, self._names[0], batch))}


def _place_error(patches: Tensor, places: Tensor) -> Tensor:
    """How far patches (B, n, c) are from the tutor's map (B, c, h, w) of the same n places, normalised."""
    wanted = places.float().flatten(2).transpose(1, 2)
    return F.mse_loss(patches.float(), F.layer_norm(wanted, wanted.shape[-1:]))
