"""Importance of each entry of a projection for one caption.

A score is a function `(W, X) -> S`: weight `(out, text_dim)` and the caption's text features `(tokens,
text_dim)`, both float32, to `S` of shape `(out, text_dim)`, larger meaning more important. `selection.py`
takes any such function.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Score = Callable[[Tensor, Tensor], Tensor]

TOKEN_CHOICES = ("caption words", "all tokens", "normalised words")


def wanda_score(weight: Tensor, features: Tensor) -> Tensor:
    """Eq. 3: `S[i,j] = |W[i,j]| * ||X[:,j]||_2`, the norm of input feature j over the tokens."""
    return weight.abs() * features.norm(dim=0)


def counted_features(features: Tensor, is_word: Tensor, tokens: str) -> Tensor:
    """The rows of X that enter the score.

    features: `(tokens, text_dim)`; is_word: bool `(tokens,)`, true for the caption's own tokens. `tokens` is
    one of TOKEN_CHOICES: the start token has the same huge norm for every prompt and would drown the rest,
    so it counts only under "all tokens"; "normalised words" scales each word to unit length first, so that
    no single word rules.
    """
    if tokens not in TOKEN_CHOICES:
        raise ValueError(f"Unknown choice of tokens {tokens!r}; choose one of {', '.join(TOKEN_CHOICES)}.")
    if tokens == "all tokens":
        return features
    words = features[is_word]
    if not len(words):
        raise ValueError("A caption has no words left to score; write at least one word or count all tokens.")
    return torch.nn.functional.normalize(words, dim=1) if tokens == "normalised words" else words
