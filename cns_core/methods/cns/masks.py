"""`NeuronMask`: which entries of the K/V projections are meant, one bit each over the flat
`ProjectionLayout`.

A 19-million-entry SD-1.5 mask takes 2.4 MB.
Every operation returns a new mask; masks of different layouts never mix.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ...projections import ProjectionLayout


class NeuronMask:
    """Bit-packed boolean matrices, one `(out, text_dim)` per projection. Immutable."""

    __slots__ = ("_counts", "bits", "layout")

    def __init__(self, layout: ProjectionLayout, bits: np.ndarray) -> None:
        """`bits`: uint8 of shape `(ceil(layout.total / 8),)`, most significant bit first; spare bits of the
        last byte are 0.
        """
        expected = (layout.total + 7) // 8
        if bits.dtype != np.uint8 or bits.shape != (expected,):
            raise ValueError(
                f"Mask bits are {bits.dtype} of shape {bits.shape}; expected uint8 of shape ({expected},)."
            )
        spare = expected * 8 - layout.total
        if spare and int(bits[-1]) & ((1 << spare) - 1):
            raise ValueError(f"The mask selects entries beyond the {layout.total} that its projections have.")
        self.layout = layout
        self.bits = bits.copy()
        self.bits.flags.writeable = False
        self._counts: dict[str, int] | None = None  # until somebody asks

    @classmethod
    def from_dense(cls, layout: ProjectionLayout, masks: Mapping[str, torch.Tensor]) -> NeuronMask:
        """Pack boolean matrices `name -> (out, text_dim)`; every projection of the layout must be there."""
        flat = np.empty(layout.total, dtype=bool)
        for name, shape, where in layout.slices():
            if name not in masks or tuple(masks[name].shape) != shape or masks[name].dtype != torch.bool:
                seen = f"{masks[name].dtype} {tuple(masks[name].shape)}" if name in masks else "nothing"
                raise ValueError(f"Mask of projection {name!r}: got {seen}, expected torch.bool {shape}.")
            flat[where] = masks[name].reshape(-1).cpu().numpy()
        return cls(layout, np.packbits(flat))

    @classmethod
    def empty(cls, layout: ProjectionLayout) -> NeuronMask:
        return cls(layout, np.zeros((layout.total + 7) // 8, dtype=np.uint8))

    @classmethod
    def full(cls, layout: ProjectionLayout) -> NeuronMask:
        return cls(layout, np.packbits(np.ones(layout.total, dtype=bool)))

    def flat(self) -> np.ndarray:
        """Boolean vector `(layout.total,)`."""
        return np.unpackbits(self.bits, count=self.layout.total).view(bool)

    def part(self, begin: int, end: int) -> np.ndarray:
        """Boolean vector `(end - begin,)`, a stretch of `flat()`."""
        first = begin // 8
        bits = np.unpackbits(self.bits[first : (end + 7) // 8])
        return bits[begin - first * 8 : end - first * 8].view(bool)

    def row_major(self, name: str) -> np.ndarray:
        """Boolean vector `(out * text_dim,)` of one projection."""
        where = self.layout.place(name)
        return self.part(where.start, where.stop)

    def dense(self, name: str) -> torch.Tensor:
        """Boolean matrix `(out, text_dim)` of one projection."""
        return torch.from_numpy(self.row_major(name).copy()).reshape(self.layout.shape(name))

    def __and__(self, other: NeuronMask) -> NeuronMask:
        return NeuronMask(self.layout, self.bits & self._same_layout(other).bits)

    def __or__(self, other: NeuronMask) -> NeuronMask:
        return NeuronMask(self.layout, self.bits | self._same_layout(other).bits)

    def __sub__(self, other: NeuronMask) -> NeuronMask:
        """Set difference: AND NOT, as in Eq. 6."""
        return NeuronMask(self.layout, self.bits & ~self._same_layout(other).bits)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, NeuronMask)
            and self.layout == other.layout
            and np.array_equal(self.bits, other.bits)
        )

    def __hash__(self) -> int:
        return hash((self.layout, self.bits.tobytes()))

    def __repr__(self) -> str:
        return f"NeuronMask({self.count():,} of {self.layout.total:,} entries, {self.share():.2%} of K/V)"

    def count(self) -> int:
        return sum(self.count_per_projection().values())

    def count_per_projection(self) -> dict[str, int]:
        if self._counts is None:
            self._counts = {
                name: int(np.count_nonzero(self.part(where.start, where.stop)))
                for name, _, where in self.layout.slices()
            }
        return dict(self._counts)

    def share(self) -> float:
        """Selected part of all K/V entries, 0 to 1."""
        return self.count() / self.layout.total

    def share_of(self, parameters: int) -> float:
        """Selected part of a model with that many parameters, 0 to 1."""
        return self.count() / parameters

    def iou(self, other: NeuronMask) -> float:
        """Intersection over union, 0 to 1; two empty masks count as equal (1)."""
        union = (self | other).count()
        return (self & other).count() / union if union else 1.0

    def _same_layout(self, other: NeuronMask) -> NeuronMask:
        if self.layout != other.layout:
            raise ValueError(
                f"These masks belong to different models: {len(self.layout.names)} projections with "
                f"{self.layout.total:,} entries against {len(other.layout.names)} with "
                f"{other.layout.total:,}. Select again on one base model."
            )
        return other
