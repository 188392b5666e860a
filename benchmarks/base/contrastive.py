"""Contrastive training of texts against pictures, shared by the base's text encoder and by the judge."""

from __future__ import annotations

import math
import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .pictures import Batch
from .wording import article
from .world import World

EVALUATION_TEMPLATE = "a photo of {}"
_NAME_TEMPLATES = (EVALUATION_TEMPLATE, "{}", "a picture of {}", "a drawing of {}", "a close-up of {}")


class LogitScale(nn.Module):
    """CLIP's learned factor on cosines, kept as its logarithm: from 1 / 0.07, at most 100."""

    def __init__(self) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self) -> Tensor:
        """The factor."""
        return self.logarithm.clamp(max=math.log(100.0)).exp()


def caption_loss(pictures: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy: (B, d) features of length one, each row belongs to the same row."""
    logits = scale * pictures @ texts.T
    own = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own))


def name_texts(world: World, rng: random.Random) -> list[str]:
    """One text for each of the world's objects, in a template drawn for all of them."""
    template = rng.choice(_NAME_TEMPLATES)
    return [template.format(article(thing.name)) for thing in world.objects]


def name_loss(pictures: Tensor, names: Tensor, scale: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of naming what a picture shows among all names (N, d); two things count half each."""
    shown = torch.zeros(len(pictures), len(names))
    for row, scene in enumerate(batch.scenes):
        for placed in scene.placed:
            shown[row, placed.object_index] += 1 / len(scene.placed)
    return F.cross_entropy(scale * pictures @ names.T, shown.to(pictures.device))


def naming_accuracy(pictures: Tensor, names: Tensor, batch: Batch) -> Tensor:
    """The share of pictures of one thing whose nearest name is right."""
    alone = [row for row, scene in enumerate(batch.scenes) if len(scene.placed) == 1]
    right = torch.tensor([batch.scenes[row].placed[0].object_index for row in alone])
    nearest = (pictures[alone] @ names.T).argmax(-1).cpu()
    return (nearest == right).float().mean()
