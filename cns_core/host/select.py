"""Selection in the host: captions through the user's CLIP, scores on the clean weights of the MODEL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import comfy.model_management as management
import torch
from torch import Tensor

from ..captions import calibration_prompts
from ..concept import Concept, check_free
from ..importance import counted_features
from ..memory import BaseModel, ConceptMemory
from ..selection import Selection, select_neurons
from ..settings import SelectionSettings
from .idle_layers import idle_layers_left_out
from .model import Base, read_base
from .text import check_length, encode_prompts, known_tokens

_BATCH = 16  # prompts that are encoded at once


@dataclass(frozen=True, eq=False)
class Neurons:
    """What SelectConceptNeurons hands to ContinualTrain: the selection, and which concept and base it is
    for.
    """

    selection: Selection
    settings: SelectionSettings
    base: BaseModel
    concept_digest: str
    parameters: int


def check_concept(concept: Concept, base: Base, clip: Any, memory: ConceptMemory | None) -> None:
    """Everything that would make learning this concept fail later, before any long work."""
    if memory is not None:
        memory.check_base(base.identity)
        check_free(concept.token, concept.name, [(c.name, c.token) for c in memory.concepts])
    if concept.token in known_tokens(clip):
        raise ValueError(
            f"This CLIP already understands {concept.token}. Connect the checkpoint loader's CLIP, not one "
            "that a memory was applied to."
        )
    captions = dict.fromkeys(c for image in concept.images for c in image.captions)
    # The class word takes at least as many tokens as the learned one, which takes one.
    check_length(clip, [concept.class_caption(c) for c in captions])


def captions_for_selection(concept: Concept) -> list[str]:
    """One caption per image with the class word in the token's place; images take turns where they share
    several wordings.
    """
    chosen = [image.captions[i % len(image.captions)] for i, image in enumerate(concept.images)]
    return list(dict.fromkeys(concept.class_caption(c) for c in chosen))


def select(
    model: Any,
    clip: Any,
    concept: Concept,
    memory: ConceptMemory | None,
    settings: SelectionSettings,
    on_progress: Callable[[int, int], None],
) -> Neurons:
    """Encode the captions and calibration prompts, then select (Eq. 3-6). `on_progress(done, total)` may
    raise to stop.
    """
    base = read_base(model, clip)
    check_concept(concept, base, clip, memory)
    mine, general = captions_for_selection(concept), calibration_prompts(settings.calibration_prompts)
    total = len(mine) + len(general) + 1
    device = management.get_torch_device()
    # In place first: layers that are left out would not be moved along.
    management.load_models_gpu([clip.patcher], force_full_load=True)
    with torch.no_grad(), idle_layers_left_out(clip):
        concept_features = _features(clip, mine, settings.tokens, lambda done: on_progress(done, total))
        calibration_features = _calibration_features(
            clip, general, settings.tokens, lambda done: on_progress(len(mine) + done, total)
        )
    weights = {name: weight.to(device).float() for name, weight in base.weights.items()}
    selection = select_neurons(
        weights,
        base.layout,
        [x.to(device) for x in concept_features],
        [x.to(device) for x in calibration_features],
        settings,
    )
    on_progress(total, total)
    return Neurons(selection, settings, base.identity, concept.digest(), base.parameters)


# For each text encoder that the host holds, the calibration prompts as last encoded with it.
_calibration: WeakKeyDictionary[Any, tuple[Any, list[Tensor]]] = WeakKeyDictionary()


def _calibration_features(
    clip: Any, prompts: Sequence[str], tokens: str, on_progress: Callable[[int], None]
) -> list[Tensor]:
    """They are the same for every concept: encoded once for as long as the text encoder stays as it is."""
    key = (clip.patcher.patches_uuid, clip.layer_idx, tuple(prompts), tokens)
    known = _calibration.get(clip.cond_stage_model)
    if known is None or known[0] != key:
        known = _calibration[clip.cond_stage_model] = (key, _features(clip, prompts, tokens, on_progress))
    on_progress(len(prompts))
    return known[1]


def _features(
    clip: Any, prompts: Sequence[str], tokens: str, on_progress: Callable[[int], None]
) -> list[Tensor]:
    """The rows of each prompt's text features that count, on the CPU."""
    features: list[Tensor] = []
    for begin in range(0, len(prompts), _BATCH):
        encoded = encode_prompts(clip, prompts[begin : begin + _BATCH], pooled=False)
        rows = zip(encoded.cross.cpu()[:, : encoded.is_word.shape[1]], encoded.is_word, strict=True)
        features += [counted_features(x, words, tokens) for x, words in rows]
        on_progress(len(features))
    return features


def describe(neurons: Neurons, memory: ConceptMemory | None) -> str:
    """The selection in figures, for people."""
    s = neurons.selection
    mask = s.concept_mask
    lines = [
        f"{mask.count():,} concept neurons: {mask.share():.2%} of K/V, "
        f"{mask.share_of(neurons.parameters):.3%} of the U-Net",
        f"top {s.top_percent:.3g} % per row; base neurons {s.base_mask.share():.2%}, general neurons "
        f"{s.general_mask.share():.2%} of K/V",
    ]
    for learned in memory.concepts if memory is not None else ():
        shared = (mask & learned.mask).count()
        lines.append(
            f"shared with `{learned.token}`: {shared:,} ({shared / mask.count():.1%} of these), IoU "
            f"{mask.iou(learned.mask):.3f}"
        )
    return "\n".join(f"- {line}" for line in lines)
