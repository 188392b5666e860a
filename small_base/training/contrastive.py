"""Contrastive training of texts against pictures, shared by the base's text encoder and by the judge."""

from __future__ import annotations

import math
import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..world.pictures import Batch
from ..world.wording import article
from ..world.world import World

_WIDTHS = (32, 64, 128, 256)  # of the tutor's stages, each of half the side
PLACES_STAGE = 2  # whose map has an eighth of the sides
PLACE_WIDTH = _WIDTHS[PLACES_STAGE]

EVALUATION_TEMPLATE = "a photo of {}"
NAME_TEMPLATES = (EVALUATION_TEMPLATE, "{}", "a picture of {}", "a drawing of {}", "a close-up of {}")


class LogitScale(nn.Module):
    """CLIP's learned factor on cosines, kept as its logarithm: from 1 / 0.07, at most 100."""

    def __init__(self) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self) -> Tensor:
        """The factor."""
        return self.logarithm.clamp(max=math.log(100.0)).exp()


class Tutor(nn.Module):
    """A convolutional picture encoder beside the one to be trained, or in its place; nothing of it is kept.

    On pictures of one size it learns to tell things apart in a tenth of the steps that a transformer takes,
    and texts that are trained against it learn what they mean sooner.

    Args:
        world: whose objects `named` tells apart.
        joint_width: of the features.
    """

    def __init__(self, world: World, joint_width: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        before = 3
        for width in _WIDTHS:
            layers: list[nn.Module] = []
            for channels, stride in ((before, 2), (width, 1)):
                layers += [
                    nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
            stages.append(nn.Sequential(*layers))
            before = width
        self._stages = nn.ModuleList(stages)
        self._joint = nn.Linear(2 * before, joint_width)
        self._named = nn.Linear(before, len(world.objects))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) in [0, 1] -> features (B, d) of length one, logits (B, N) of the objects, and what is
        found in each eighth of the sides: (B, PLACE_WIDTH, H / 8, W / 8).
        """
        maps = self.maps(images)
        # What is somewhere, and what is everywhere: things and their ground.
        strongest, mean = maps[-1].amax((2, 3)), maps[-1].mean((2, 3))
        joint = self._joint(torch.cat((strongest, mean), 1))
        return F.normalize(joint.float(), dim=-1), self._named(strongest).float(), maps[PLACES_STAGE]

    def maps(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> what each stage finds: (B, width, h, w), of half the side each time."""
        found, maps = images * 2 - 1, []
        for stage in self._stages:
            found = stage(found)
            maps.append(found)
        return maps


def caption_loss(pictures: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy: (B, d) features of length one, each row belongs to the same row."""
    logits = scale * pictures @ texts.T
    own = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own))


def name_texts(world: World, rng: random.Random) -> list[str]:
    """One text for each of the world's objects, in a template drawn for all of them."""
    return texts_of_names(world, rng.choice(NAME_TEMPLATES))


def texts_of_names(world: World, template: str) -> list[str]:
    """One text for each of the world's objects, in one of `NAME_TEMPLATES`."""
    return [template.format(article(thing.name)) for thing in world.objects]


def name_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of naming what a picture shows among all objects (B, N); two things count half each."""
    shown = torch.zeros(logits.shape)
    for row, scene in enumerate(batch.scenes):
        for placed in scene.placed:
            shown[row, placed.object_index] += 1 / len(scene.placed)
    return F.cross_entropy(logits, shown.to(logits.device))


def naming_accuracy(pictures: Tensor, names: Tensor, batch: Batch) -> Tensor:
    """The share of pictures of one thing whose nearest name is right."""
    alone = [row for row, scene in enumerate(batch.scenes) if len(scene.placed) == 1]
    right = torch.tensor([batch.scenes[row].placed[0].object_index for row in alone])
    nearest = (pictures[alone] @ names.T).argmax(-1).cpu()
    return (nearest == right).float().mean()
