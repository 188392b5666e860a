"""`clip`: trains the base's text encoder against pictures, so that words mean what they look like.

The picture encoder beside it is thrown away. What is held out of the base is never seen here.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .contrastive import LogitScale, caption_loss, name_loss, name_texts, naming_accuracy
from .layout import BaseSize
from .pictures import PictureStream, used_token_ids
from .text_encoder import WIDTH, TextEncoder
from .tokenizer import Tokenizer, first_end, trimmed
from .training import Average, clip_gradients, set_rate
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
                "pictures": _PictureEncoder(),
                "project": nn.Linear(WIDTH, JOINT_WIDTH, bias=False),
                "scale": LogitScale(),
            }
        ).to(device)
        self._average = Average(self.text, 0.998)
        self._parameters = [*self.text.parameters(), *self._rest.parameters()]
        self._rate = rate
        self._optimizer = torch.optim.Adam(self._parameters, lr=rate, betas=(0.9, 0.98))
        self._pictures = PictureStream(world, PICTURE, device, seed)
        self._rng = random.Random(seed)

    def step(self, index: int, rate: float) -> dict[str, Tensor]:
        """One batch of new pictures, their captions, and all names."""
        batch = self._pictures.batch(self._batch)
        with torch.autocast(self._device.type, torch.bfloat16):
            pictures = self._of_pictures(batch.images)
            texts = self._of_texts(batch.captions)
            names = self._of_texts(name_texts(self._world, self._rng))
        scale = self._rest["scale"]()
        captions, naming = caption_loss(pictures, texts, scale), name_loss(pictures, names, scale, batch)
        self._optimizer.zero_grad(set_to_none=True)
        (captions + naming).backward()
        clip_gradients(self._parameters)
        set_rate(self._optimizer, rate * self._rate)
        self._optimizer.step()
        self._average.update(index)
        return {"captions": captions, "naming": naming, "named": naming_accuracy(pictures, names, batch)}

    def state(self) -> dict[str, Any]:
        """Weights, the text encoder's average and its ids, the optimizer."""
        return {
            "text": self.text.state_dict(),
            "rest": self._rest.state_dict(),
            "average": self._average.state_dict(),
            "used_ids": self._used_ids,
            "optimizer": self._optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """The counterpart of `state`."""
        if state["used_ids"] != self._used_ids:
            raise ValueError(
                f"{self.name} was trained for {len(state['used_ids'])} token ids, this world's captions use "
                f"{len(self._used_ids)} others: train it anew, or bring the world file it was trained on"
            )
        self.text.load_state_dict(state["text"])
        self._rest.load_state_dict(state["rest"])
        self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])

    @torch.no_grad()
    def report(self, folder: Path, index: int) -> dict[str, float]:
        """How often the right name is nearest, on pictures it is never trained on."""
        batch = PictureStream(self._world, PICTURE, self._device, _TEST_SEED).batch(256)
        names = self._of_texts(name_texts(self._world, random.Random(_TEST_SEED)))
        return {"named_in_test": float(naming_accuracy(self._of_pictures(batch.images), names, batch))}

    def _of_pictures(self, images: Tensor) -> Tensor:
        return F.normalize(self._rest["pictures"](images * 2 - 1).float(), dim=-1)

    def _of_texts(self, texts: list[str]) -> Tensor:
        end = self._tokenizer.end
        ids = trimmed(self._tokenizer(texts), end).to(self._device)
        states = self.text(ids)
        whole = states[torch.arange(len(ids), device=self._device), first_end(ids, end)]
        return F.normalize(self._rest["project"](whole).float(), dim=-1)


class _PictureEncoder(nn.Sequential):
    """(B, 3, 64, 64) in [-1, 1] -> (B, 256): plain convolutions, which learn to name things far sooner than
    a transformer does, and nothing of it is kept.
    """

    def __init__(self, widths: Sequence[int] = (48, 96, 192, 384)) -> None:
        layers: list[nn.Module] = []
        before = 3
        for width in widths:
            for channels, stride in ((before, 2), (width, 1)):
                layers += [
                    nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
                    nn.GroupNorm(width // 16, width),
                    nn.ReLU(inplace=True),
                ]
            before = width
        super().__init__(*layers, nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(4 * before, JOINT_WIDTH))
