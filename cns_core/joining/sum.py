"""Every change is added: `W = W_0 + sum_i D_i`. The merge of Orthogonal Adaptation (2312.02432), whose
concepts are learned so that they can be summed; of others it shows what summing does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..projections import ProjectionLayout
from .change import JoinedChange
from .maps import AsItIs
from .rule import Evidence


@dataclass(frozen=True)
class SumSettings:
    """Nothing is to be chosen."""


class _Added:
    def maps(self, changes: Sequence[Tensor]) -> list[AsItIs]:
        return [AsItIs() for _ in changes]


class Sum:
    """Any number of memories, and all that they moved."""

    name = "sum"
    Settings = SumSettings
    reads_text = False
    most: int | None = None

    def start(self, evidence: Evidence, settings: SumSettings) -> _Added:
        return _Added()

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> JoinedChange:
        return JoinedChange.read(self.name, layout, tensors)
