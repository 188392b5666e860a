"""`clip`: trains the base's text encoder against pictures, so that words mean what they look like.

The picture encoder beside it is thrown away. What is held out of the base is never seen here.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .contrastive import LogitScale, Tutor, caption_loss, name_loss, name_texts, naming_accuracy
from .layout import BaseSize
from .learner import Learner
from .pictures import PictureStream, used_token_ids
from .text_encoder import WIDTH, TextEncoder
from .tokenizer import Tokenizer, first_end, trimmed
from .training import stretch_seed
from .world import World

JOINT_WIDTH = 256
PICTURE = 64
_TEST_SEED = 1_000_003


class TextTrainer:
    """CLIP's loss over captions, and naming what a picture shows among all names."""

    def __init__(
        self,
        size: BaseSize,
        world: World,
        tokenizer: Tokenizer,
        device: torch.device,
        *,
        seed: int,
        batch: int,
        rate: float,
    ) -> None:
        self.name = f"text-{size.name}"
        self._device, self._batch, self._world, self._tokenizer = device, batch, world, tokenizer
        self._used_ids = used_token_ids(world, tokenizer)
        torch.manual_seed(seed)
        self.text = TextEncoder(size.text_layers, self._used_ids).to(device)
        self._rest = nn.ModuleDict(
            {
                "tutor": Tutor(world, JOINT_WIDTH),
                "project": nn.Linear(WIDTH, JOINT_WIDTH, bias=False),
                "scale": LogitScale(),
            }
        ).to(device)
        parameters = [*self.text.parameters(), *self._rest.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=rate, betas=(0.9, 0.98))
        networks = {"text": self.text, "rest": self._rest}
        self._learner = Learner(networks, "text", optimizer, 0.998)
        self._seed = seed
        self._pictures = PictureStream(world, PICTURE, device, seed)
        self._rng = random.Random(seed)

    def begin(self, index: int) -> None:
        """Draw other pictures than in earlier stretches."""
        seed = stretch_seed(self._seed, index)
        self._pictures.seed(seed)
        self._rng.seed(seed)

    def step(self, index: int, rate: float) -> dict[str, Tensor]:
        """One batch of new pictures, their captions, and all names."""
        batch = self._pictures.batch(self._batch)
        with torch.autocast(self._device.type, torch.bfloat16):
            pictures, named, _ = self._rest["tutor"](batch.images)
            texts = self._of_texts(batch.captions)
            names = self._of_texts(name_texts(self._world, self._rng))
        scale = self._rest["scale"]()
        captions, naming = caption_loss(pictures, texts, scale), name_loss(scale * pictures @ names.T, batch)
        self._learner.update(captions + naming + name_loss(named, batch), index, rate)
        return {"captions": captions, "naming": naming, "named": naming_accuracy(pictures, names, batch)}

    def state(self) -> dict[str, Any]:
        """Weights, the text encoder's average and its ids, the optimizer."""
        return {**self._learner.state(), "used_ids": self._used_ids}

    def load(self, state: dict[str, Any]) -> None:
        """The counterpart of `state`."""
        if state["used_ids"] != self._used_ids:
            raise ValueError(
                f"{self.name} was trained for {len(state['used_ids'])} token ids, this world's captions use "
                f"{len(self._used_ids)} others: train it anew, or bring the world file it was trained on"
            )
        self._learner.load(state)

    @torch.no_grad()
    def report(self, folder: Path, index: int) -> dict[str, float]:
        """How often the right name is nearest, on pictures it is never trained on."""
        batch = PictureStream(self._world, PICTURE, self._device, _TEST_SEED).batch(256)
        names = self._of_texts(name_texts(self._world, random.Random(_TEST_SEED)))
        tutor = self._rest["tutor"].eval()
        pictures = tutor(batch.images)[0]
        tutor.train()
        return {"named_in_test": float(naming_accuracy(pictures, names, batch))}

    def _of_texts(self, texts: list[str]) -> Tensor:
        end = self._tokenizer.end
        ids = trimmed(self._tokenizer(texts), end).to(self._device)
        states = self.text(ids)
        whole = states[torch.arange(len(ids), device=self._device), first_end(ids, end)]
        return F.normalize(self._rest["project"](whole).float(), dim=-1)
