"""An embedding, and weights of Custom Diffusion beside it, as a concept of a memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

import torch
from torch import Tensor

from ..captions import template_captions
from ..concept import check_class_word as check_word
from ..concept import check_free, check_kind, check_name, check_token, make_token
from ..foreign import STILL_OF_USE, custom_diffusion_weights, embedding_vectors
from ..interference import GENERAL
from ..memory import ConceptMemory, LearnedConcept
from ..method import Change
from ..methods.dense_kv import DenseChange, DenseKv
from ..methods.token_only import NoChange, TokenOnly
from ..tensor_file import TensorFileError, read_tensors
from .measure import measured
from .model import BaseModel, read_base
from .paths import model_file
from .text import check_class_word, check_length, known_tokens, with_tokens
from .types import Clip, Model, OnProgress


@dataclass(frozen=True)
class Words:
    """How the concept is to be called; an empty token is made from the name."""

    name: str
    token: str
    class_word: str
    kind: str


def imported(
    model: Model,
    clip: Clip,
    memory: ConceptMemory | None,
    words: Words,
    embedding: str,
    weights: str | None,
    on_progress: OnProgress,
) -> tuple[ConceptMemory, list[str]]:
    """The memory with the concept as its latest, and lines for the user.

    embedding: a file among the host's embeddings; weights: one among its LoRAs, of Custom Diffusion.

    Raises:
        ValueError: files, words, memory and model do not fit each other.
    """
    base = read_base(model, clip)
    earlier = memory or ConceptMemory(base.identity, base.layout)
    earlier.check_base(base.identity)
    earlier.check_fits(base.layout, base.unet, base.token_widths)
    token = check_token(words.token) if words.token.strip() else make_token(words.name)
    check_name(words.name)
    check_word(words.class_word)
    check_kind(words.kind)
    check_class_word(clip, words.class_word)
    check_free(token, words.name, [(c.name, c.handle) for c in earlier.concepts])
    if token in known_tokens(clip):
        raise ValueError(
            f"This CLIP already understands {token}. Connect the checkpoint loader's CLIP, not one that a "
            "memory was applied to."
        )
    try:
        vectors = embedding_vectors(read_tensors(model_file("embeddings", embedding)), base.token_widths)
    except ValueError as error:
        raise ValueError(_told(embedding, error)) from error
    captions = tuple(template_captions(words.kind, token))
    try:
        check_length(with_tokens(clip, {token: vectors}), captions)
    except ValueError as error:
        fault = f"its vectors leave too little room in prompts. {error} {STILL_OF_USE}"
        raise ValueError(_told(embedding, ValueError(fault))) from error
    change: Change = NoChange(base.layout)
    if weights is not None:
        change = _change(weights, base, earlier.changes())
    concept = LearnedConcept(
        name=words.name.strip(),
        token=token,
        class_word=words.class_word.strip(),
        kind=words.kind,
        captions=captions,
        method=TokenOnly.name if weights is None else DenseKv.name,
        change=change,
        token_vectors=vectors,
        settings={"imported": {"embedding": embedding, "weights": weights or ""}},
        losses={},
        learned_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    both = earlier.with_learned(concept)
    lines = [f"`{token}` ({concept.name}) draws what `embedding:{embedding}` did"]
    if weights is not None:
        found, notes = measured(model, clip, both, [token], on_progress)
        lines += [*found.told([token], [GENERAL, *earlier.left()]), *notes]
    return both, lines


def _change(weights: str, base: BaseModel, before: Mapping[str, Tensor]) -> DenseChange:
    """What the file's weights differ by from the base, on top of what earlier concepts left."""
    try:
        theirs = custom_diffusion_weights(read_tensors(model_file("loras", weights)), base.layout)
    except ValueError as error:
        raise ValueError(_told(weights, error)) from error
    return DenseChange(
        base.layout,
        {
            name: (before[name].float() + weight - base.weights[name].to("cpu", torch.float32)).half()
            for name, weight in theirs.items()
        },
    )


def _told(file: str, error: ValueError) -> str:
    return str(error) if isinstance(error, TensorFileError) else f"{file} cannot become a concept: {error}."
