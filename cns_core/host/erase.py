"""EraseConcept in the host: what has to stay is measured with the user's own CLIP; then it is done by a
formula, or trained (`erase_by_training.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..concept import check_free
from ..erasures import ERASURES, TRAINED, Erasure
from ..erasures.kept import Kept
from ..erasures.pairs import paired
from ..erasures.uce import Uce, UceSettings, erased, feature_map
from ..erasures.wording import ToErase, lines_of, named
from ..general_prompts import general_prompts
from ..interference import GENERAL, interference
from ..memory import ConceptMemory
from ..method import Change
from ..protected import ALL_TOKENS, automatic_count
from .erase_by_training import ToTrain, as_learned, erase_by_training
from .model import BaseModel, check_trainable, read_base
from .progress import Progress
from .prompt_reader import PromptReader
from .text import check_length, fault_of_word, with_tokens
from .types import Clip, Model

_KEPT = "what you keep"
_INSTEAD = "the words to fall back on"


@dataclass(frozen=True, eq=False)
class Erased:
    """The new memory, and lines for the user."""

    memory: ConceptMemory
    lines: list[str]


def erase(
    model: Model,
    clip: Clip,
    memory: ConceptMemory | None,
    what: ToErase,
    settings: Any,
    progress: Progress,
    by: Erasure = ERASURES[Uce.name],
) -> Erased:
    """Take words out by a way to erase, and keep everything else, the concepts of a memory among it. MODEL
    and CLIP stay as they are.

    settings: `by.Settings`.

    Raises:
        ValueError: words, memory and model do not fit each other; before any long work.
    """
    base = read_base(model, clip)
    earlier = memory or ConceptMemory(base.identity, base.layout)
    _check(model, clip, base, earlier, what, lines_of(settings.keep))
    reader = PromptReader(clip, earlier.token_vectors(), base.layout.shapes[0][1], progress.phase)
    moments = _moments(reader, earlier, what, settings)
    weights = _weights(base, earlier)
    gram = sum((w.T @ w for w in weights.values()), start=torch.zeros_like(moments[GENERAL]))
    kept = torch.stack([*moments.values()]).sum(dim=0)
    losses: dict[str, Tensor] = {}
    change: Change
    if isinstance(settings, UceSettings):
        change, lines = _by_formula(base, weights, what, settings, kept, gram, reader)
    else:
        trained = erase_by_training(
            ToTrain(model, clip, base, earlier, what, TRAINED[by.name], settings, kept, gram), progress
        )
        change, losses = trained.change, trained.losses
        lines = [*_of_losses(losses), *trained.notes]
    concept = as_learned(what, by.name, settings, change, losses)
    after = earlier.with_learned(concept)
    heard = interference(after, [concept.handle], moments, gram).told([concept.handle], list(moments))
    return Erased(after, [*lines, *heard, *reader.notes])


def _by_formula(
    base: BaseModel,
    weights: Mapping[str, Tensor],
    what: ToErase,
    settings: UceSettings,
    kept: Tensor,
    gram: Tensor,
    reader: PromptReader,
) -> tuple[Change, list[str]]:
    """UCE's change, and what there is to tell."""
    pairs = paired(what, reader.read)
    first, second = feature_map(pairs, kept, settings)
    change = erased(base.layout, weights, first, second)
    to = ", ".join(dict.fromkeys(filter(None, what.instead))) or "the same prompts without them"
    way = pairs.way(first, second, gram)
    return change, [f"keys and values of {', '.join(what.words)} went {way:.1%} of the way to those of {to}"]


def _of_losses(losses: Mapping[str, Tensor]) -> list[str]:
    """What each was at the beginning and at the end: means of a tenth of the steps."""
    told = []
    for name, values in losses.items():
        some = max(1, len(values) // 10)
        told.append(f"{name} {float(values[:some].mean()):.3g} to {float(values[-some:].mean()):.3g}")
    return [f"losses, from the first steps to the last: {', '.join(told)}"] if told else []


def _check(
    model: Model,
    clip: Clip,
    base: BaseModel,
    earlier: ConceptMemory,
    what: ToErase,
    keep: tuple[str, ...],
) -> None:
    check_trainable(model, clip)
    earlier.check_base(base.identity)
    earlier.check_fits(base.layout, base.unet, base.token_widths)
    check_free(what.name, what.name, [(c.name, c.handle) for c in earlier.concepts])
    for word in filter(None, (*what.words, *what.instead)):
        if (fault := fault_of_word(clip, word)) is not None:
            raise ValueError(f"{word!r} {fault}. Write the plain word for what is meant, such as 'leopard'.")
    tokens = earlier.token_vectors()
    longest = [prompt for word in (*what.words, *what.instead, *keep) for prompt in named(word)]
    check_length(with_tokens(clip, tokens) if tokens else clip, longest)


def _moments(
    reader: PromptReader, earlier: ConceptMemory, what: ToErase, settings: Kept
) -> dict[str, Tensor]:
    """Second moments `(d, d)` of all that stays, by group: of all general prompts, of each word and of each
    concept a mean over its prompts.
    """
    count = settings.general_prompts or automatic_count(reader.device)
    keep = lines_of(settings.keep)
    instead = tuple(word for word in dict.fromkeys(what.instead) if word)
    taught = earlier.taught()
    groups = [
        what.spare(general_prompts(count)),
        *(named(word) for word in (*keep, *instead)),
        *(what.spare(concept.class_captions()) for concept in taught),
        *(what.spare(concept.captions) for concept in taught),
    ]
    general, *others = reader.second_moments(groups, ALL_TOKENS, lasting=1)
    found, rest = {GENERAL: general}, iter(others)
    for name, words in ((_KEPT, keep), (_INSTEAD, instead)):
        if words:
            found[name] = sum((next(rest) for _ in words), start=torch.zeros_like(general))
    of_class = [next(rest) for _ in taught]
    for concept, class_word, own in zip(taught, of_class, rest, strict=True):
        found[concept.token] = own + class_word
    return found


def _weights(base: BaseModel, earlier: ConceptMemory) -> Mapping[str, Tensor]:
    """Every projection as it is with all that was learned before, float64 on the CPU."""
    found = {name: weight.to("cpu", torch.float64) for name, weight in base.weights.items()}
    if not len(earlier):
        return found
    laid = earlier.laid()
    return {name: weight + laid[name].in_full() for name, weight in found.items()}
