"""The cross-attention key and value weights of a U-Net, and their one flat layout.

A *projection* is one matrix `W` of shape `(out, text_dim)`. Everything sparse in this project (masks,
trained values) lives in one flat vector that runs over all projections in layout order, row by row.
Methods that move more of the U-Net have layouts of other matrices (`weight_scopes.py`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from math import prod

import torch

_KEY_OR_VALUE = re.compile(r"(?:^|\.)attn2\.to_[kv]$")


@dataclass(frozen=True)
class ProjectionLayout:
    """Names and shapes of matrices, `(out, text_dim)` of the projections,
    in the order in which the flat vector holds them.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...]
    offsets: tuple[int, ...] = field(init=False, compare=False, repr=False)
    _places: Mapping[str, int] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.names) != len(self.shapes):
            raise ValueError(
                f"{len(self.names)} projection names for {len(self.shapes)} shapes; give one shape per name."
            )
        if len(set(self.names)) != len(self.names):
            raise ValueError("A projection name occurs twice in the layout; names must be unique.")
        object.__setattr__(self, "offsets", tuple(accumulate((prod(s) for s in self.shapes), initial=0)))
        object.__setattr__(self, "_places", {name: i for i, name in enumerate(self.names)})

    def __contains__(self, name: str) -> bool:
        return name in self._places

    @property
    def total(self) -> int:
        """Entries of all projections together."""
        return self.offsets[-1]

    def shape(self, name: str) -> tuple[int, int]:
        """`(out, text_dim)` of one projection."""
        return self.shapes[self._places[name]]

    def place(self, name: str) -> slice:
        """Where one projection lies in the flat vector."""
        i = self._places[name]
        return slice(self.offsets[i], self.offsets[i + 1])

    def slices(self) -> Iterator[tuple[str, tuple[int, int], slice]]:
        """Name, shape and place in the flat vector of each projection."""
        for i, name in enumerate(self.names):
            yield name, self.shapes[i], slice(self.offsets[i], self.offsets[i + 1])

    def only(self, names: Collection[str]) -> ProjectionLayout:
        """The matrices of these names alone, in this layout's order; names that it does not have are left
        out.
        """
        kept = [(name, shape) for name, shape, _ in self.slices() if name in names]
        return ProjectionLayout(tuple(name for name, _ in kept), tuple(shape for _, shape in kept))

    def joined(self, others: Iterable[ProjectionLayout]) -> ProjectionLayout:
        """With the matrices of others that are not in it. ValueError where two disagree about a shape."""
        shapes = dict(zip(self.names, self.shapes, strict=True))
        for other in others:
            if other is self or other == self:
                continue
            for name, shape, _ in other.slices():
                if shapes.setdefault(name, shape) != shape:
                    raise ValueError(
                        f"The matrix {name!r} is {shapes[name]} in one place, {shape} in another."
                    )
        return (
            self
            if len(shapes) == len(self.names)
            else ProjectionLayout(tuple(shapes), tuple(shapes.values()))
        )


def find_projections(shapes: Mapping[str, Iterable[int]]) -> ProjectionLayout:
    """Pick the cross-attention K/V matrices out of a U-Net's weights (`name -> shape`,
    names as in its state dict).

    A model counts as supported when it has `...attn2.to_k.weight` and `...attn2.to_v.weight` matrices in
    pairs that all read text features of one width; that is the structure shared by SD 1.x, SD 2.x and SDXL.
    Raises ValueError otherwise.
    """
    found: dict[str, tuple[int, int]] = {}
    for key, shape in shapes.items():
        name = key.removesuffix(".weight")
        dims = tuple(shape)
        if key.endswith(".weight") and _KEY_OR_VALUE.search(name) and len(dims) == 2:
            found[name] = (dims[0], dims[1])
    if not found:
        tops = sorted({key.split(".")[0] for key in shapes})
        raise ValueError(
            "This model has no cross-attention key/value matrices (attn2.to_k, attn2.to_v), "
            f"so it cannot learn concepts. Found {len(shapes)} weights in: "
            f"{', '.join(tops[:12]) or 'nothing'}."
        )
    unpaired = [n for n in found if n[:-1] + ("v" if n.endswith("k") else "k") not in found]
    widths = sorted({s[1] for s in found.values()})
    if unpaired or len(widths) != 1:
        raise ValueError(
            f"Unusual cross-attention layout: text widths {widths}, matrices without partner {unpaired[:3]}. "
            "Expected an attn2.to_v for every attn2.to_k, and one text width for all."
        )
    return ProjectionLayout(tuple(found), tuple(found.values()))


def flat_weights(
    weights: Mapping[str, torch.Tensor], layout: ProjectionLayout
) -> Iterator[tuple[str, torch.Tensor]]:
    """Each projection's weight `(out, text_dim)` in layout order;
    ValueError when one is missing or of another shape.
    """
    for name, shape, _ in layout.slices():
        if name not in weights:
            raise ValueError(
                f"The model has no projection {name!r}, which the layout expects with shape {shape}."
            )
        if tuple(weights[name].shape) != shape:
            raise ValueError(f"Projection {name!r} has shape {tuple(weights[name].shape)}; expected {shape}.")
        yield name, weights[name]
