"""Text encoders as contrastive training sees them: texts in, features of length one out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..judge.judge import new_judge
from ..judge.judge_tokenizer import reduced_files
from ..layout import BaseSize
from ..world.pictures import as_transformed, used_token_ids
from ..world.transforms import TRANSFORMS
from ..world.world import World
from .text_encoder import WIDTH, TextEncoder
from .tokenizer import Tokenizer, first_end, trimmed

_LOUDNESS = 4.0  # of the words' rows, against the size that they have in CLIP
_LOUDEST_BRANCH = 0.4  # norm of the matrix that a layer's branch ends in


class TextTower(nn.Module, ABC):
    """An encoder, and a projection of what it says of a whole text."""

    used_ids: list[int]  # of CLIP's vocabulary: those that have a trained row
    tokenizer: Tokenizer
    encoder: nn.Module
    project: nn.Module

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Texts -> (B, d) features of length one."""
        ids = trimmed(self.tokenizer(texts), self.tokenizer.end).to(self.project.weight.device)
        return F.normalize(self.project(self.whole(ids)).float(), dim=-1)

    def constrain(self) -> None:
        """After each step: what the encoder's weights have to keep to. Nothing, unless a tower says so."""

    @abstractmethod
    def whole(self, ids: Tensor) -> Tensor:
        """Token ids (B, n) -> what is read off at the end of the text (B, width)."""


class BaseTexts(TextTower):
    """The base's text encoder, and a projection that is thrown away.

    The words' rows stay as they are, random and thus far apart, and a layer adds to them no more than their
    own length. Left to itself this training gathers all names in the few directions that tell apart most of
    what is seen (136 of them filled 6 of 768), and a U-Net hardly learns what each of them looks like.
    """

    def __init__(self, size: BaseSize, world: World) -> None:
        super().__init__()
        self.tokenizer = Tokenizer(world.tokenizer_files)
        self.used_ids = used_token_ids(world, self.tokenizer)
        self.encoder = TextEncoder(size.text_layers, self.used_ids)
        rows = self.encoder.embeddings.token_embedding.weight.requires_grad_(False)
        rows *= _LOUDNESS
        self.project = nn.Linear(WIDTH, 256, bias=False)

    def whole(self, ids: Tensor) -> Tensor:
        """The state of the first end token."""
        rows = torch.arange(len(ids), device=ids.device)
        return self.encoder(ids)[rows, first_end(ids, self.tokenizer.end)]

    @torch.no_grad()
    def constrain(self) -> None:
        """Keep what the layers add quiet."""
        for layer in self.encoder.encoder.layers:
            for last in (layer.self_attn.out_proj, layer.mlp.fc2):
                last.weight *= (_LOUDEST_BRANCH / last.weight.norm()).clamp(max=1.0)


class JudgeTexts(TextTower):
    """The judge's text encoder and projection, with a tokenizer cut down to the words in use."""

    def __init__(self, world: World) -> None:
        super().__init__()
        whole = Tokenizer(world.tokenizer_files)
        shown_as = whole.used_in([as_transformed("", name) for name in TRANSFORMS])
        self.used_ids = used_token_ids(world, whole) + shown_as
        self.tokenizer = Tokenizer(reduced_files(world.tokenizer_files, self.used_ids))
        model = new_judge(self.tokenizer.end + 1)
        self.encoder, self.project = model.text_model, model.text_projection

    def whole(self, ids: Tensor) -> Tensor:
        """What CLIP pools."""
        return self.encoder(input_ids=ids).pooler_output
