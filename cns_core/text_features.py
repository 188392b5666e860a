"""What a text encoder makes of prompts: the keys and values of a U-Net read nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TOKEN_CHOICES = ("caption words", "all tokens", "normalised words")


@dataclass(frozen=True, eq=False)
class TextFeatures:
    """Encoded prompts.

    cross: `(B, tokens, text_dim)` float32, what the cross-attention reads.
    pooled: `(B, p)` float32, or None for models that read none.
    is_word: bool `(B, tokens)`, true for the prompt's own tokens (not for start, end and padding).
    """

    cross: Tensor
    pooled: Tensor | None
    is_word: Tensor

    @staticmethod
    def concatenated(features: Sequence[TextFeatures]) -> TextFeatures:
        """Several batches as one."""
        pooled = [f.pooled for f in features if f.pooled is not None]
        return TextFeatures(
            torch.cat([f.cross for f in features]),
            torch.cat(pooled) if pooled else None,
            torch.cat([f.is_word for f in features]),
        )

    def rows(self, rows: Sequence[int]) -> TextFeatures:
        """The prompts at these places of the batch, in this order; one may come several times."""
        picked = list(rows)
        pooled = None if self.pooled is None else self.pooled[picked]
        return TextFeatures(self.cross[picked], pooled, self.is_word[picked])

    def detached(self) -> TextFeatures:
        """These features without a gradient."""
        pooled = None if self.pooled is None else self.pooled.detach()
        return TextFeatures(self.cross.detach(), pooled, self.is_word)


def counted_tokens(features: Tensor, is_word: Tensor, tokens: str) -> Tensor:
    """The rows of one caption's features that count for its meaning.

    Args:
        features: `(tokens, text_dim)`.
        is_word: bool `(tokens,)`, true for the caption's own tokens.
        tokens: one of TOKEN_CHOICES. The start token has the same huge norm for every prompt and would drown
            the rest, so it counts only under "all tokens"; "normalised words" scales each word to unit length
            first, so that no single word rules.

    Raises:
        ValueError: the choice is unknown, or the caption has no words.
    """
    if tokens not in TOKEN_CHOICES:
        raise ValueError(f"Unknown choice of tokens {tokens!r}; choose one of {', '.join(TOKEN_CHOICES)}.")
    if tokens == "all tokens":
        return features
    words = features[is_word]
    if not len(words):
        raise ValueError("A caption has no words left to score; write at least one word or count all tokens.")
    return torch.nn.functional.normalize(words, dim=1) if tokens == "normalised words" else words
