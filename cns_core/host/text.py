"""Prompts in the host: learned tokens understood by the stock nodes,
and text features with a gradient for training.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..families import SUPPORTED
from ..prompt_tokens import unknown_tokens
from ..text_features import TextFeatures
from ..tokens import TokenVectors
from .types import Clip
from .weights import Weights

SECTION = 77  # tokens of one encoder pass, start and end included

OnUnknown = Callable[[list[str], list[str]], None]


class SplicedTokenizer:
    """An inner tokenizer of the host that also knows learned tokens
    and puts their vectors where their ids would stand.

    Everything else behaves as the tokenizer it stands for, so weights like `(<my-dog>:1.3)`, embeddings and
    third-party text encoders work unchanged. `vectors`: token -> `(n, dim)`.

    A token of one vector is a word of the vocabulary. One of several is to the host what an embedding file
    is: the host counts its vectors and keeps them in one section. No token is part of another, since each
    begins and ends with a bracket.

    on_unknown: is told of tokens that a prompt names and nothing has learned, and those that are known.
    """

    def __init__(
        self, inner: Any, vectors: Mapping[str, Tensor], on_unknown: OnUnknown | None = None
    ) -> None:
        if isinstance(inner, SplicedTokenizer):
            vectors = {**inner.vectors, **vectors}
            inner = inner.host
        self.host: Any = inner
        self._on_unknown = on_unknown
        self.inner: Any = copy.copy(inner)
        self.inner.tokenizer = copy.deepcopy(inner.tokenizer)
        self.vectors: dict[str, Tensor] = dict(vectors)
        words = [token for token, found in vectors.items() if len(found) == 1]
        self.inner.tokenizer.add_tokens(words)
        self._words = {self.inner.tokenizer.convert_tokens_to_ids(token): token for token in words}
        self._embeddings = [token for token in vectors if token not in words]
        if self._embeddings:
            self._look_up_file = self.inner._try_get_embedding
            self.inner._try_get_embedding = self._look_up
            if self.inner.embedding_directory is None:  # the host looks nothing up without one
                self.inner.embedding_directory = []

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # not set yet, while being copied
            raise AttributeError(name)
        return getattr(self.inner, name)

    def tokenize_with_weights(self, text: str, *args: Any, **kwargs: Any) -> list[list[tuple[Any, ...]]]:
        if self._on_unknown is not None and (unknown := unknown_tokens(text, self.vectors)):
            self._on_unknown(unknown, list(self.vectors))
        if self._embeddings:
            called = self.inner.embedding_identifier
            tokens = "|".join(map(re.escape, self._embeddings))
            # As of words of the vocabulary, capitals make no difference.
            text = re.sub(f"(?:{called})?({tokens})", rf" {called}\1 ", text, flags=re.IGNORECASE)
        sections = self.inner.tokenize_with_weights(text, *args, **kwargs)
        return [[self._spliced(entry) for entry in section] for section in sections]

    def _look_up(self, text: str) -> tuple[Tensor | None, str]:
        """In place of the host's own: the embedding that a text begins with the name of, and what follows."""
        name, _, rest = text.partition(" ")
        if name.lower() in self._embeddings:
            return self.vectors[name.lower()], rest.strip()
        found: tuple[Tensor | None, str] = self._look_up_file(text)
        return found

    def _spliced(self, entry: tuple[Any, ...]) -> tuple[Any, ...]:
        token = self._words.get(entry[0]) if isinstance(entry[0], int) else None
        return entry if token is None else (self.vectors[token][0], *entry[1:])


def inner_tokenizers(clip: Clip) -> dict[str, Any]:
    """The host's tokenizer per text encoder (`clip_l`, ...);
    ValueError for text encoders that are not CLIP.
    """
    found = {
        n: t
        for n, t in vars(clip.tokenizer).items()
        if n.startswith("clip_") and hasattr(t, "tokenize_with_weights")
    }
    if not found or any(not hasattr(getattr(clip.cond_stage_model, n, None), "transformer") for n in found):
        raise ValueError(
            f"This text encoder ({type(clip.cond_stage_model).__name__}) is not one of CLIP's; "
            f"concepts need the CLIP of one of: {SUPPORTED}."
        )
    return found


def token_tables(clip: Clip, added: bool = True) -> dict[str, Tensor]:
    """The token table `(vocabulary, dim)` of each text encoder, patched (see `Weights.computed`)."""
    weights = Weights(clip.patcher)
    table = "transformer.text_model.embeddings.token_embedding.weight"
    return {name: weights.computed(f"{name}.{table}", added) for name in inner_tokenizers(clip)}


def known_tokens(clip: Clip) -> list[str]:
    """Learned tokens that this CLIP already understands."""
    spliced = [t for t in inner_tokenizers(clip).values() if isinstance(t, SplicedTokenizer)]
    return list(dict.fromkeys(token for t in spliced for token in t.vectors))


def with_tokens(clip: Clip, tokens: Mapping[str, TokenVectors], on_unknown: OnUnknown | None = None) -> Clip:
    """A clone of CLIP that understands learned tokens (token -> encoder -> vectors);
    the given CLIP stays as it is.

    on_unknown: see `SplicedTokenizer`; told once for each prompt, by one of the encoders.
    """
    inner = inner_tokenizers(clip)
    taken = sorted(set(tokens) & set(known_tokens(clip)))
    if taken:
        raise ValueError(
            f"This CLIP already understands {', '.join(taken)}; apply each concept memory only once."
        )
    for token, vectors in tokens.items():
        if set(vectors) != set(inner):
            raise ValueError(
                f"{token} has vectors for {sorted(vectors)}, but this CLIP has the text encoders "
                f"{sorted(inner)}."
            )
    clone = clip.clone()
    clone.tokenizer = copy.copy(clip.tokenizer)
    for name, tokenizer in inner.items():
        vectors = {token: of_encoder[name] for token, of_encoder in tokens.items()}
        setattr(clone.tokenizer, name, SplicedTokenizer(tokenizer, vectors, on_unknown))
        on_unknown = None
    return clone


def word_ids(clip: Clip, word: str) -> dict[str, list[int]]:
    """Token ids of a word, per text encoder, without start, end and padding."""
    return {n: _ids_of_words(t, word) for n, t in inner_tokenizers(clip).items()}


def _ids_of_words(tokenizer: Any, text: str) -> list[int]:
    sections = tokenizer.tokenize_with_weights(text, return_word_ids=True)
    return [entry[0] for section in sections for entry in section if entry[2] > 0]


def check_class_word(clip: Clip, word: str) -> None:
    """ValueError unless every text encoder's tokenizer makes plain words of it: a token starts from them."""
    if (fault := fault_of_word(clip, word)) is not None:
        raise ValueError(
            f"The class word {word!r} {fault}. Write the plain word for what the concept is, such as 'dog', "
            "in Load Concept Images."
        )


def fault_of_word(clip: Clip, word: str) -> str | None:
    """Why a text encoder's tokenizer does not make plain words of it; None where all do."""
    for tokenizer in inner_tokenizers(clip).values():
        sections = tokenizer.tokenize_with_weights(word, return_word_ids=True)
        entries = [entry for section in sections for entry in section if entry[2] > 0]
        if any(not isinstance(entry[0], int) for entry in entries):
            return "names an embedding, where plain words are needed"
        if any(entry[1] != 1.0 for entry in entries):
            return "has a weight"
        if not entries:
            return "is no word to this model's tokenizer"
    return None


def check_length(clip: Clip, prompts: Sequence[str]) -> None:
    """ValueError when a prompt does not fit one pass of the text encoder."""
    for prompt in prompts:
        for tokenizer in inner_tokenizers(clip).values():
            sections = tokenizer.tokenize_with_weights(prompt, return_word_ids=True)
            if len(sections) > 1:
                words = sum(entry[2] > 0 for section in sections for entry in section)
                raise ValueError(
                    f"A caption or prompt has {words} tokens; at most {SECTION - 2} fit. "
                    f"Shorten: {prompt[:120]!r}"
                )


def encode_prompts(clip: Clip, prompts: Sequence[str], pooled: bool) -> TextFeatures:
    """Prompts of one section each, through the user's CLIP, clip skip included. The caller has the host load
    the text encoder first, and decides whether a gradient is kept.

    cross `(n, 77, dim)`, on the text encoder's device. With `pooled` they are encoded one by one, for of
    several at once the host returns the first one's pooled output alone.
    """
    if pooled:
        return TextFeatures.concatenated([_encoded(clip, [prompt]) for prompt in prompts])
    return replace(_encoded(clip, prompts), pooled=None)


def _encoded(clip: Clip, prompts: Sequence[str]) -> TextFeatures:
    tokens = [clip.tokenize(prompt, return_word_ids=True) for prompt in prompts]
    # The host encodes the sections of a long prompt side by side; sections of several prompts are no other.
    plain = {n: [[e[:2] for e in section] for t in tokens for section in t[n]] for n in tokens[0]}
    model = clip.cond_stage_model
    model.reset_clip_options()
    # As the host's own encoding: where it streams weights in, they lie elsewhere than they are computed on.
    model.set_clip_options({"execution_device": clip.patcher.load_device})
    if clip.layer_idx is not None:
        model.set_clip_options({"layer": clip.layer_idx})
    cross, pooled = model.encode_token_weights(plain)[:2]
    words = [next(iter(t.values()))[0] for t in tokens]
    is_word = torch.tensor([[entry[2] > 0 for entry in section] for section in words])
    return TextFeatures(
        cross.float().reshape(len(prompts), -1, cross.shape[-1]),
        None if pooled is None else pooled.float(),
        is_word,
    )
