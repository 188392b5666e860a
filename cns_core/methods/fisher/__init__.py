"""CNS with L_reg weighed by Fisher information, as elastic weight consolidation does (1612.00796): entries
that mattered to earlier concepts are held, and those that did not are free to move.

    L_reg = keep_earlier sum F (W_t - W_{t-1})^2 + keep_base ||M_con (W_t - W_0)||^2
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...method import Change, Earlier
from ...projections import ProjectionLayout
from ..cns import Cns
from ..cns.prepared import SelectedNeurons
from ..cns.settings import CnsTraining
from .adaptation import FisherAdaptation
from .change import FisherChange


class CnsWithFisher(Cns):
    """Concept neurons that keep their Fisher information."""

    name = "cns with Fisher"

    def start(
        self, prepared: SelectedNeurons, earlier: Earlier, settings: CnsTraining, device: torch.device
    ) -> FisherAdaptation:
        return FisherAdaptation(prepared.mask, earlier, settings, device)

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Change:
        return FisherChange.read(layout, tensors)
