"""An endless stream of captioned pictures of a world."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .compose import Composer, SceneSampler
from .tokenizer import Tokenizer
from .wording import Scene, caption
from .world import World

PAIRS = 0.35


@dataclass(frozen=True)
class Batch:
    """Pictures and what is said of them."""

    images: Tensor  # (B, 3, size, size) in [0, 1], on the device
    captions: list[str]
    scenes: list[Scene]


class PictureStream:
    """Draws batches without end; the same seed gives the same scenes and captions on every machine."""

    def __init__(
        self, world: World, size: int, device: torch.device, seed: int, *, pairs: float = PAIRS
    ) -> None:
        """`pairs` is the share of pictures that show two things."""
        self.world = world
        self._sampler = SceneSampler(world, size, seed, pairs=pairs)
        self._composer = Composer(world, size, device, torch.float32)
        self._rng = random.Random(seed)

    def seed(self, seed: int) -> None:
        """Go on as a stream of this seed would begin."""
        self._rng.seed(seed)

    def batch(self, count: int) -> Batch:
        """The next `count` pictures."""
        scenes = self._sampler.sample(count, self._rng)
        captions = [caption(scene, self.world, self._rng) for scene in scenes]
        return Batch(self._composer.render(scenes), captions, scenes)


def used_token_ids(world: World, tokenizer: Tokenizer, captions: int = 20_000) -> list[int]:
    """The ids that captions of this world use: all names, and what a good many captions say besides."""
    rng = random.Random(0)
    scenes = SceneSampler(world, 64, 0).sample(captions, rng)
    return tokenizer.used_in([*_names(world), *(caption(scene, world, rng) for scene in scenes)])


def _names(world: World) -> Iterator[str]:
    for thing in world.objects:
        yield thing.name
        yield thing.category
    yield from world.styles
    yield from world.scenes
