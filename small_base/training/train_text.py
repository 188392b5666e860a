"""`clip` and `tutor`: train a text encoder against pictures, so that words mean what they look like.

The pictures are seen by a convolutional tutor. Beside the base's text encoder (`clip`), which never sees what
is held out, it is thrown away; beside the judge's (`tutor`) it is kept, for the judge to learn to see from.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..layout import BaseSize
from ..world.pictures import PictureStream
from ..world.wording import FULL_WORDING, Shares
from ..world.world import World
from .contrastive import LogitScale, Tutor, caption_loss, name_loss, name_texts, naming_accuracy
from .learner import Learner
from .picture_trainer import PictureTrainer
from .precision import mixed_precision
from .text_towers import BaseTexts, TextTower
from .tokenizer import trimmed
from .whereabouts import Whereabouts

PICTURE = 64
TRANSFORMED = 0.06  # of the judge's pictures: shown as one of the transforms that are held out as styles
_TEST_SEED = 1_000_003


def base_text_trainer(size: BaseSize, world: World, device: torch.device, **options: Any) -> TextTrainer:
    """What trains the base's texts."""
    texts = BaseTexts(size, world)
    more = {"shares": size.shares, "whereabouts": True}
    return TextTrainer(f"text-{size.name}", texts, world, device, **more, **options)


class TextTrainer(PictureTrainer):
    """CLIP's loss over captions, and naming what a picture shows among all names."""

    def __init__(
        self,
        name: str,
        texts: TextTower,
        world: World,
        device: torch.device,
        *,
        seed: int,
        batch: int,
        rate: float,
        transformed: float = 0.0,
        shares: Shares = FULL_WORDING,
        whereabouts: bool = False,
    ) -> None:
        """
        Args:
            transformed: the share of pictures that are shown as one of the transforms.
            shares: how often captions say what.
            whereabouts: whether the encoder is to say at a name which of two things it is.
        """
        self._device, self._batch, self._world = device, batch, world
        torch.manual_seed(seed)
        self.texts = texts.to(device)
        self.texts.constrain()
        self.tutor = Tutor(world, texts.project.out_features).to(device)
        self.scale = LogitScale().to(device)
        networks = {
            "text": texts.encoder,
            "project": texts.project,
            "tutor": self.tutor,
            "scale": self.scale,
        }
        self._whereabouts = Whereabouts(world, texts.tokenizer).to(device) if whereabouts else None
        if self._whereabouts is not None:
            networks["whereabouts"] = self._whereabouts
        every = (parameter for network in networks.values() for parameter in network.parameters())
        parameters = [parameter for parameter in every if parameter.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=rate, betas=(0.9, 0.98), fused=True)
        pictures = PictureStream(world, PICTURE, device, seed, transformed=transformed, shares=shares)
        super().__init__(name, seed, pictures, Learner(networks, "text", optimizer, 0.998))

    def step(self, index: int, rate: float) -> dict[str, Tensor]:
        """One batch of new pictures, their captions, and all names."""
        batch = self.pictures.batch(self._batch)
        with mixed_precision(self._device):
            pictures, named, _ = self.tutor(batch.images)
            texts = self.texts(batch.captions)
            names = self.texts(name_texts(self._world, self.pictures.rng))
        scale = self.scale()
        captions, naming = caption_loss(pictures, texts, scale), name_loss(scale * pictures @ names.T, batch)
        parts = {"captions": captions, "naming": naming}
        if self._whereabouts is not None:
            parts["where"] = self._whereabouts.loss(*self._states_of(batch.captions), batch)
        self.learner.update(sum(parts.values()) + name_loss(named, batch), index, rate)
        self.texts.constrain()
        return {**parts, "named": naming_accuracy(pictures, names, batch)}

    def _states_of(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """What the encoder says at each token (B, n, width), and the tokens' ids (B, n)."""
        ids = trimmed(self.texts.tokenizer(captions), self.texts.tokenizer.end)
        with mixed_precision(self._device):
            return self.texts.encoder(ids.to(self._device)), ids

    def state(self) -> dict[str, Any]:
        """Weights, the text encoder's average and its ids, the optimizer."""
        return {**super().state(), "used_ids": self.texts.used_ids}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        if state["used_ids"] != self.texts.used_ids:
            raise ValueError(
                f"{self.name} was trained for {len(state['used_ids'])} token ids, this world's captions use "
                f"{len(self.texts.used_ids)} others: train it anew, or bring the world file it was trained on"
            )
        super().load(state)

    @torch.no_grad()
    def report(self, folder: Path, index: int) -> dict[str, float]:
        """How often the right name is nearest, on pictures it is never trained on."""
        batch = PictureStream(self._world, PICTURE, self._device, _TEST_SEED).batch(512)
        names = self.texts(name_texts(self._world, random.Random(_TEST_SEED)))
        self.tutor.eval()
        pictures = torch.cat([self.tutor(part)[0] for part in batch.images.split(64)])
        self.tutor.train()
        return {"named_in_test": float(naming_accuracy(pictures, names, batch))}
