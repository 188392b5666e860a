"""DreamBooth (2208.12242): the whole U-Net moves, and pictures of the class keep the class.

The paper names its subject by a rare word of the vocabulary; here it has the new token, whose vector learns
too unless its rate is 0. Each concept is trained on top of the one before. What is kept is the difference of
every weight in float16, so that one concept is as large as the U-Net.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..method import Change, Earlier, Material
from ..projections import ProjectionLayout
from ..settings import check, number
from ..weight_scopes import EVERYTHING
from .dense_kv import DenseAdaptation, DenseChange, DenseSelection
from .shares import AllOf


@dataclass(frozen=True)
class DreamBoothTraining:
    """How the U-Net is trained."""

    weight_lr: float = number(5e-6, 0, 1, "Learning rate of the weights. Paper: 5e-6.", step=1e-6, digits=9)

    def __post_init__(self) -> None:
        check(self)


class WholeUNet(AllOf):
    """Every weight may move."""

    def report(self, parameters: int, earlier: Mapping[str, Change]) -> str:
        values = self.layout.total
        return (
            f"- all {values:,} values of the U-Net; each concept takes {2 * values / 1e6:,.0f} MB in the "
            f"memory's file, and training {16 * values / 1e9:.1f} GB beside the model (the difference, its "
            "gradient and Adam's two moments)"
        )


class DreamBooth:
    """The whole U-Net."""

    name = "dreambooth"
    prior = "drawn class images"
    Selection = DenseSelection
    Training = DreamBoothTraining

    def prepare(self, material: Material, settings: DenseSelection) -> WholeUNet:
        return WholeUNet(material.weights_in(EVERYTHING))

    def start(
        self, prepared: WholeUNet, earlier: Earlier, settings: DreamBoothTraining, device: torch.device
    ) -> DenseAdaptation:
        return DenseAdaptation(earlier, settings.weight_lr, device)

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Change:
        return DenseChange(layout, tensors)
