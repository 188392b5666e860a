"""MergeConcepts in the host: what prompts say of each memory's concepts is read with the user's own CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..general_prompts import general_prompts
from ..joining.join import Joined, Seen, check_joinable, join
from ..joining.rule import TWO_PROMPTS, Evidence, Joining, Reading
from ..memory import ConceptMemory, LearnedConcept
from ..moments import second_moment
from ..protected import ALL_TOKENS, automatic_count
from .model import read_base
from .prompt_reader import PromptReader
from .text import inner_tokenizers, known_tokens, with_tokens
from .types import Clip, Model, OnProgress

_EVERYTHING = Reading()  # all that the model reads of all captions


def join_memories(
    model: Model,
    clip: Clip,
    memories: Sequence[ConceptMemory],
    rule: Joining,
    settings: Any,
    on_progress: OnProgress,
) -> tuple[Joined, list[str]]:
    """One memory of all concepts, and notes for the user. MODEL and CLIP stay as they are.

    Raises:
        ValueError: memories, rule and model do not fit each other; before any long work.
    """
    check_joinable(memories, rule)
    base = read_base(model, clip)
    for memory in memories:
        memory.check_base(base.identity)
        memory.check_fits(base.layout, base.unet, base.token_widths)
    tokens = {token: vectors for m in memories for token, vectors in m.token_vectors().items()}
    if known := sorted(set(tokens) & set(known_tokens(clip))):
        raise ValueError(
            f"This CLIP already understands {', '.join(known)}. Connect the checkpoint loader's CLIP, not "
            "one that a memory was applied to."
        )
    width = base.layout.shapes[0][1]
    reader = PromptReader(clip, tokens, width, on_progress)
    concepts = [concept for memory in memories for concept in memory.concepts]
    read = _Read(reader, with_tokens(clip, tokens), concepts, width)
    prompts = general_prompts(automatic_count(reader.device))
    as_class = [
        caption for memory in memories for taught in memory.taught() for caption in taught.class_captions()
    ]
    general, classes = reader.second_moments([prompts, as_class], ALL_TOKENS, lasting=1)
    gram = torch.zeros_like(general)
    for weight in base.weights.values():
        wide = weight.float()
        gram += (wide.T @ wide).to("cpu", torch.float64)
    reading = settings if isinstance(settings, Reading) else Reading()
    evidence = Evidence(read.moments(memories, reading), general + classes)
    seen = Seen(read.moments(memories, _EVERYTHING), general, gram)
    return join(memories, rule, settings, evidence, seen, on_progress), reader.notes


class _Read:
    """All prompts that tell of some concepts, read once."""

    def __init__(
        self, reader: PromptReader, clip: Clip, concepts: Sequence[LearnedConcept], width: int
    ) -> None:
        """clip: with the concepts' tokens; width: of the text features."""
        self._width, self._begins = width, {}
        for concept in concepts:
            for prompt in (*concept.captions, *_two_prompts(concept)):
                self._begins[prompt] = _begin(clip, concept, prompt)
        self._places = {prompt: place for place, prompt in enumerate(self._begins)}
        self._features = reader.read(list(self._begins))

    def moments(self, memories: Sequence[ConceptMemory], how: Reading) -> tuple[Tensor, ...]:
        """Of each memory's concepts, summed, `(width, width)` float64."""
        nothing = torch.zeros(self._width, self._width, dtype=torch.float64)
        return tuple(sum((self._moment(c, how) for c in m.concepts), start=nothing) for m in memories)

    def _moment(self, concept: LearnedConcept, how: Reading) -> Tensor:
        """Of what comes from the token on: rows before it are the same without it."""
        prompts = _two_prompts(concept) if how.captions == TWO_PROMPTS else concept.captions
        rows = []
        for prompt in prompts:
            place = self._places[prompt]
            is_word = self._features.is_word[place]
            # One more after the words ends the prompt.
            last = len(is_word) if how.padding else int(is_word.nonzero()[-1]) + 2
            rows.append(self._features.cross[place, self._begins[prompt] : last])
        return second_moment(rows, self._width)


def _two_prompts(concept: LearnedConcept) -> tuple[str, str]:
    of_it = "a painting in the style of" if concept.kind == "style" else "a photo of"
    return concept.token, f"{of_it} {concept.token}"


def _begin(clip: Clip, concept: LearnedConcept, prompt: str) -> int:
    """At which of a prompt's tokens the concept's own begins."""
    encoder, tokenizer = next(iter(inner_tokenizers(clip).items()))
    vector = concept.token_vectors[encoder][0].float()
    for place, entry in enumerate(tokenizer.tokenize_with_weights(prompt, return_word_ids=True)[0]):
        if isinstance(entry[0], Tensor) and torch.equal(entry[0].cpu().float(), vector):
            return place
    raise ValueError(
        f"The caption {prompt[:120]!r} of {concept.name!r} does not have its token {concept.token} in it as "
        "a word of its own. Learn the concept again with captions that name it."
    )
