"""The seam between the training loop and whatever runs the model: a toy U-Net in the tests, ComfyUI's models
in the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from .framing import Framings
from .method import WeightFunction
from .schedule import NoiseLevels
from .text_features import TextFeatures


class DiffusionBackend(Protocol):
    """What the training loop needs of a model. Nothing here changes the model's own weights."""

    levels: NoiseLevels
    device: torch.device

    def encode(self, prompts: Sequence[str], token_vectors: Mapping[str, Tensor] | None) -> TextFeatures:
        """Encode prompts. The token being learned reads `token_vectors` (encoder -> `(n, dim)`), and the
        features are differentiable in them.
        """
        ...

    def predict(
        self, z_t: Tensor, t: Tensor, features: TextFeatures, framings: Framings | None = None
    ) -> Tensor:
        """The model's own prediction (`levels.prediction_type`), float32, for noised latents.

        Args:
            z_t: `(B, C, h, w)`.
            t: noise levels `(B,)`.
            framings: what each row's picture was cut from; None: all are as drawn. Models that are told
                nothing of it leave it aside.
        """
        ...

    def weights_patched(self, functions: Mapping[str, WeightFunction]) -> AbstractContextManager[None]:
        """While the context is open, each named projection uses `f(W)` in place of W;
        afterwards no trace is left.
        """
        ...
