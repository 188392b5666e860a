"""MODEL and CLIP that draw a memory's concepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..identity import ModelIdentity
from ..memory import ConceptMemory
from ..weight_scopes import EVERYTHING, weights_in
from . import notices
from .apply import apply_changes
from .model import check_pair, possible_bases, unet_shapes
from .text import token_tables, with_tokens
from .types import Clip, Model

_CLOSE = 0.5  # models that have nothing in common are about 1.4 apart


@dataclass(frozen=True, eq=False)
class Personalized:
    """What draws a memory's concepts; warning: empty, or how far the model is from the memory's own."""

    model: Model
    clip: Clip
    warning: str


def personalize(
    model: Model,
    clip: Clip,
    memory: ConceptMemory,
    strength: float = 1.0,
    as_of: str = "",
    strengths: str = "",
    close_too: bool = False,
) -> Personalized:
    """Clones of MODEL and CLIP with the memory's values and tokens.

    Args:
        strength: of all weight changes.
        as_of: an earlier stage, see `ConceptMemory.stage`; empty for all of it.
        strengths: of single concepts, see `ConceptMemory.strengths`.
        close_too: take a model that is close to the one that the memory was made on, with a warning.

    Raises:
        ValueError: the memory was made on another base, or has no such stage or concept.
    """
    warning = check_drawable(model, clip, memory, close_too)
    stage, single = memory.stage(as_of) if as_of.strip() else memory, memory.strengths(strengths)
    drawn = apply_changes(model, stage, strength, single)
    return Personalized(drawn, with_tokens(clip, stage.token_vectors(), _tell_unknown), warning)


def _tell_unknown(unknown: list[str], known: list[str]) -> None:
    """Such a prompt is drawn all the same: it may be meant so, or be made by other nodes."""
    notices.tell(
        f"A prompt names {', '.join(unknown)}, which nothing has learned that is applied here, so that it "
        f"reads as plain letters. Learned: {', '.join(known) or 'none'}."
    )


def check_drawable(model: Model, clip: Clip, memory: ConceptMemory, close_too: bool = False) -> str:
    """A warning where the memory was made on a model that is only close to this one, else nothing. ValueError
    where it cannot be drawn with this MODEL and CLIP.
    """
    warning = _check_base(memory, possible_bases(model, clip), close_too)
    widths = {name: table.shape[1] for name, table in token_tables(clip).items()}
    memory.check_fits(check_pair(model, clip)[1], weights_in(unet_shapes(model), EVERYTHING), widths)
    return warning


def _check_base(memory: ConceptMemory, bases: Sequence[ModelIdentity], close_too: bool) -> str:
    """A warning where the memory was made on a model that is only close to these, else nothing."""
    nearest = min(bases, key=lambda base: 0 if base.same_as(memory.base) else base.distance(memory.base))
    distance = nearest.distance(memory.base)
    if nearest.same_as(memory.base):
        return ""
    if close_too and distance <= _CLOSE:
        return (
            f"This memory was made on {memory.base}; the loaded model is {nearest}, whose weights are "
            f"{100 * distance:.2g} % apart from it. The farther apart, the less alike the concepts come out."
        )
    close = " This one is close: to draw on it all the same, set other model to 'a close one too'."
    memory.check_base(nearest, close if distance <= _CLOSE else "")
    return ""
