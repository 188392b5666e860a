"""A learned token as an embedding file, which ComfyUI, diffusers and most other programs read."""

from __future__ import annotations

from torch import Tensor

from ..memory import LearnedConcept


def embedding(concept: LearnedConcept) -> dict[str, Tensor]:
    """Float32 `(n, dim)`: under one name for one text encoder, else for each encoder under its own.

    Of several vectors diffusers makes a token each (`<my-dog>`, `<my-dog>_1`, ...), and writes them all where
    a prompt has the first.
    """
    vectors = {encoder: found.float().contiguous() for encoder, found in concept.token_vectors.items()}
    return vectors if len(vectors) > 1 else {"emb_params": next(iter(vectors.values()))}


def embedding_name(token: str) -> str:
    """The file's name: `<my-dog>` becomes `my-dog`, since no file can have the brackets everywhere."""
    return token.strip("<>")
