"""Selection in the host: captions through the user's CLIP, scores on the clean weights of the MODEL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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
from .text import check_length, encode_prompt, known_tokens


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

    def features(prompts: Sequence[str], done: int) -> list[Tensor]:
        counted = []
        for prompt in prompts:
            encoded = encode_prompt(clip, prompt)
            x = encoded.cross[0][: encoded.is_word.shape[1]].cpu()
            counted.append(counted_features(x, encoded.is_word[0], settings.tokens).to(device))
            on_progress(done + len(counted), total)
        return counted

    # In place first: layers that are left out would not be moved along.
    management.load_models_gpu([clip.patcher], force_full_load=True)
    with torch.no_grad(), idle_layers_left_out(clip):
        concept_features = features(mine, 0)
        calibration_features = features(general, len(mine))
    weights = {name: weight.to(device).float() for name, weight in base.weights.items()}
    selection = select_neurons(weights, base.layout, concept_features, calibration_features, settings)
    on_progress(total, total)
    return Neurons(selection, settings, base.identity, concept.digest(), base.parameters)


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
