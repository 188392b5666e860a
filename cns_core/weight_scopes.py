"""Which weights of a U-Net a method may move, beyond the cross-attention's keys and values.

Every weight is seen as a matrix: a convolution's `(out, in, h, w)` as `(out, in h w)`, a norm's or a bias's
`(n,)` as `(n, 1)`. Names are those of the state dict without `.weight`; a bias keeps its `.bias`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import prod

from .projections import ProjectionLayout, find_projections

KEYS_AND_VALUES = "keys and values"
CROSS_ATTENTION = "cross-attention"
ATTENTION = "attention"
LINEAR = "linear layers"
LINEAR_AND_CONV = "linear layers and convolutions"
EVERYTHING = "the whole U-Net"

SCOPES = (KEYS_AND_VALUES, CROSS_ATTENTION, ATTENTION, LINEAR, LINEAR_AND_CONV, EVERYTHING)

_NAMES = {
    CROSS_ATTENTION: re.compile(r"(^|\.)attn2\.to_(q|k|v|out(\.0)?)$"),
    ATTENTION: re.compile(r"(^|\.)attn[12]\.to_(q|k|v|out(\.0)?)$"),
}
_DIMENSIONS = {LINEAR: (2,), LINEAR_AND_CONV: (2, 4), EVERYTHING: (1, 2, 4)}


def weights_in(shapes: Mapping[str, Iterable[int]], scope: str) -> ProjectionLayout:
    """The weights of a scope, from all of a U-Net's (`name -> shape`, names as in its state dict). ValueError
    for a U-Net without cross-attention.
    """
    if scope == KEYS_AND_VALUES:
        return find_projections(shapes)
    found: dict[str, tuple[int, int]] = {}
    for key, shape in shapes.items():
        dims, name = tuple(shape), key.removesuffix(".weight")
        named = _NAMES[scope].search(name) is not None if scope in _NAMES else True
        ending = (".weight", ".bias") if scope == EVERYTHING else ".weight"
        if named and len(dims) in _DIMENSIONS.get(scope, (2,)) and key.endswith(ending):
            found[name] = (dims[0], prod(dims[1:]))
    return ProjectionLayout(tuple(found), tuple(found.values()))


def state_dict_key(name: str) -> str:
    """A weight's name in the U-Net's state dict, the counterpart of what `weights_in` makes of it."""
    return name if name.endswith(".bias") else f"{name}.weight"
