"""Where in a U-Net weights lie: its attention layers that read text, from the first to the last, by names
that people can read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .export.block_names import diffusers_names
from .projections import ProjectionLayout

ELSEWHERE = "elsewhere"  # what lies in no attention layer that reads text
_WITHIN_LAYER = re.compile(r"(\.transformer_blocks\..+|\.attn2\.to_[kv])$")


@dataclass(frozen=True)
class Place:
    """One attention layer, which SDXL makes of several blocks in a row.

    label: such as "down 1.0" (the first layer of the second level on the way down), "middle" or "up 3.2"; in
        a U-Net that is not built like Stable Diffusion's, the layer's own name.
    names: of its weights.
    """

    label: str
    names: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The key projections among its weights."""
        return tuple(name for name in self.names if name.endswith("attn2.to_k"))

    @property
    def values(self) -> tuple[str, ...]:
        """The value projections among its weights."""
        return tuple(name for name in self.names if name.endswith("attn2.to_v"))


def places_of(projections: ProjectionLayout, weights: ProjectionLayout) -> tuple[Place, ...]:
    """The places of some weights, in the order of the projections, which is that of the U-Net; what is in
    none of its attention layers comes last, as `ELSEWHERE`. Places without any of the weights are left out.

    projections: all keys and values of the U-Net.
    """
    found: dict[str, list[str]] = {_layer_of(name): [] for name in projections.names}
    rest: list[str] = []
    for name in weights.names:
        layer = next((layer for layer in found if name.startswith(f"{layer}.")), None)
        (rest if layer is None else found[layer]).append(name)
    labels = _labels(projections)
    places = [Place(labels[layer], tuple(names)) for layer, names in found.items() if names]
    return (*places, *([Place(ELSEWHERE, tuple(rest))] if rest else []))


def in_places(places: Sequence[Place], wanted: str) -> frozenset[str]:
    """The names of the weights in the places whose labels are given, between commas or one a line. ValueError
    for a label that none has.
    """
    known = {place.label: place.names for place in places}
    labels = list(filter(None, map(str.strip, wanted.replace("\n", ",").split(","))))
    if strange := [label for label in labels if label not in known]:
        raise ValueError(
            f"This model has no layer {strange[0]!r}. Write some of these, with commas between: "
            f"{', '.join(known)}."
        )
    return frozenset(name for label in labels for name in known[label])


def _layer_of(projection: str) -> str:
    """The name of the module that a projection lies in, without the number of its block there."""
    return _WITHIN_LAYER.sub("", projection)


def _labels(projections: ProjectionLayout) -> dict[str, str]:
    """By layer."""
    try:
        known = diffusers_names(projections.names)
    except ValueError:  # not in Stable Diffusion's layout, or with layers left out
        return {layer: layer for layer in map(_layer_of, projections.names)}
    labels = {}
    for name, other in known.items():
        side, _, rest = other.partition("_block")
        level, _, layer = rest.removeprefix("s.").partition(".attentions.")
        short = "middle" if side == "mid" else f"{side} {level}.{layer.partition('.')[0]}"
        labels[_layer_of(name)] = short
    return labels
