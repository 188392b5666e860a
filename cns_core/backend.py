"""The seam between the training loop and whatever runs the model: a toy U-Net in the tests, ComfyUI's models
in the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .schedule import NoiseLevels


@dataclass(frozen=True, eq=False)
class TextFeatures:
    """Encoded prompts.

    cross: `(B, tokens, text_dim)` float32, what the cross-attention reads; pooled: `(B, p)` float32 or None;
    is_word: bool `(B, tokens)`, true for the prompt's own tokens (no start token, no end, no padding).
    """

    cross: Tensor
    pooled: Tensor | None
    is_word: Tensor

    @staticmethod
    def stack(features: Sequence[TextFeatures]) -> TextFeatures:
        """Along the batch."""
        pooled = [f.pooled for f in features if f.pooled is not None]
        return TextFeatures(
            torch.cat([f.cross for f in features]),
            torch.cat(pooled) if pooled else None,
            torch.cat([f.is_word for f in features]),
        )

    def detached(self) -> TextFeatures:
        return TextFeatures(
            self.cross.detach(), None if self.pooled is None else self.pooled.detach(), self.is_word
        )


class DiffusionBackend(Protocol):
    """What the training loop needs of a model. Nothing here changes the model's own weights."""

    levels: NoiseLevels
    device: torch.device

    def encode(self, prompts: Sequence[str], token_vectors: Mapping[str, Tensor] | None) -> TextFeatures:
        """Encode prompts; the learned token reads `token_vectors` (encoder -> `(dim,)`) and is
        differentiable in them.
        """
        ...

    def predict(self, z_t: Tensor, t: Tensor, features: TextFeatures) -> Tensor:
        """The model's own prediction (`levels.prediction_type`), float32, for `z_t` `(B, C, h, w)` at steps
        `t` `(B,)`.
        """
        ...

    def hung(self, functions: Mapping[str, Callable[[Tensor], Tensor]]) -> AbstractContextManager[None]:
        """While the context is open, each named projection uses `f(W)` in place of W; afterwards no trace is
        left.
        """
        ...
