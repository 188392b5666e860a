"""What methods have in common that learn a low-rank change of every key and value matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ...method import Change, Material
from ...projections import ProjectionLayout
from ..dense_kv import DenseSelection
from ..shares import AllOf
from .change import LowRankChange


@dataclass(frozen=True)
class EveryProjection(AllOf):
    """Every entry may move, each projection within a low rank."""

    def report(self, parameters: int, earlier: Mapping[str, Change]) -> str:
        share = self.layout.total / parameters
        return f"- a low-rank change of all {len(self.layout.names)} K/V matrices: {share:.3%} of the U-Net"


class LowRankMethod:
    """Base of such methods."""

    prior = "none"  # the class has no part in how these papers train
    Selection = DenseSelection

    def prepare(self, material: Material, settings: DenseSelection) -> EveryProjection:
        return EveryProjection(material.layout)

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Change:
        return LowRankChange.read(layout, tensors)
