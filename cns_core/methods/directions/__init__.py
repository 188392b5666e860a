"""Guarded directions: learn a concept where nothing else listens.

Keys and values read text features alone: what a change D of a projection does to any prompt is exactly D x.
Each concept is learned along the few directions of feature space in which its own captions are strong and
everything that must stay is silent.

Relatives: ROME (2202.05262) and Perfusion (2305.01644) edit along one direction, UCE (2308.14761) edits in
closed form, InfLoRA (2404.00228) and LoDA (2603.00191) keep the tasks of a classifier apart by subspaces.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...method import Change, Earlier, Material
from ...projections import ProjectionLayout
from ...protected import Protection
from .adaptation import DirectionsAdaptation
from .change import DirectionsChange
from .prepared import Guarded, prepared
from .settings import DirectionsTraining


class GuardedDirections:
    """Guarded directions."""

    name = "directions"
    prior = "none"
    Selection = Protection
    Training = DirectionsTraining

    def prepare(self, material: Material, settings: Protection) -> Guarded:
        """Measure what general prompts, the class word and earlier concepts say."""
        return prepared(material, settings)

    def start(
        self, prepared: Guarded, earlier: Earlier, settings: DirectionsTraining, device: torch.device
    ) -> DirectionsAdaptation:
        return DirectionsAdaptation(prepared.protected, earlier, settings, device)

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Change:
        return DirectionsChange.read(layout, tensors)
