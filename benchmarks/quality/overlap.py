"""Jobs of the kind `overlap`: how far the concept neurons of prompts are the same when one word changes
(the paper's Fig. 7).

Of each prompt the mask of Eq. 6 is found as for a concept whose only caption it is. Their intersections over
unions say whether a mask is of a concept: then those of prompts that share their noun should be alike, and
those of prompts that share all but the noun should not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from devtools.concept_folders import read_concepts
from devtools.staging import SHIPPED_CONCEPTS

from .jobs import Job
from .variants import VARIANTS

if TYPE_CHECKING:
    from .bench import Bench

OVERLAP = "overlap"
# The noun, and the rest with a place for it: the first prompt, then one word changed at a time.
PROMPTS: tuple[tuple[str, str], ...] = (
    ("dog", "a photo of a {} on a beach"),
    ("cat", "a photo of a {} on a beach"),
    ("horse", "a photo of a {} on a beach"),
    ("car", "a photo of a {} on a beach"),
    ("guitar", "a photo of a {} on a beach"),
    ("house", "a photo of a {} on a beach"),
    ("dog", "a photo of a {} on a meadow"),
    ("dog", "a photo of a {} on a street"),
    ("dog", "a picture of a {} on a beach"),
    ("dog", "a drawing of a {} on a beach"),
    ("dog", "a photo of the {} on a beach"),
)
_TOKEN = "<probe>"
# The settings that decide which entries CNS chooses, besides the score and the tokens that count.
SELECTED_BY = ("select_by", "budget_percent", "top_percent", "calibration_prompts", "general_share")


def overlap_job(settings: Mapping[str, Any], score: str, tokens: str, **more: Any) -> Job:
    """By one score of CNS (Eq. 3 and others), with these tokens of a prompt counted."""
    chosen = VARIANTS["cns"].settings(settings) | {"score": score, "tokens": tokens}
    own = {name: chosen[name] for name in SELECTED_BY if name in chosen}
    return Job(OVERLAP, {**own, "score": score, "tokens": tokens, **more})


def overlap(bench: Bench, values: Mapping[str, Any]) -> dict[str, Any]:
    """iou: of each pair of `PROMPTS`, in their order; same_noun, other_noun: means over the pairs with the
    first prompt that share its noun, and over those that share all else; share: of K/V, of each mask.
    """
    from cns_core.host.prepare import prepare

    (folder,) = read_concepts(SHIPPED_CONCEPTS, ["panda"])  # any: its pictures are not looked at
    like = bench.concept(folder)
    method, masks = VARIANTS["cns"].method, []
    selection = VARIANTS["cns"].selection(values)
    for noun, rest in PROMPTS:
        caption = rest.format(_TOKEN)
        images = tuple(replace(image, captions=(caption,)) for image in like.images[:1])
        concept = replace(like, name="probe", token=_TOKEN, class_word=noun, images=images)
        loaded = bench.loaded
        plan = prepare(loaded.model, loaded.clip, concept, None, method, selection, lambda done, total: None)
        masks.append(plan.prepared.mask)
    iou = [[one.iou(other) for other in masks] for one in masks]
    first = PROMPTS[0]
    same = [iou[0][n] for n, (noun, _) in enumerate(PROMPTS) if n and noun == first[0]]
    other = [iou[0][n] for n, (noun, rest) in enumerate(PROMPTS) if noun != first[0] and rest == first[1]]
    return {
        "iou": iou,
        "share": [mask.share() for mask in masks],
        "same_noun": sum(same) / len(same),
        "other_noun": sum(other) / len(other),
    }
