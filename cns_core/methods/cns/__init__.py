"""Concept Neuron Selection, the method of the paper: few entries of K/V, chosen by their importance for the
concept's captions (Eq. 3-6), held to their former values by L_reg (Eq. 7).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...captions import calibration_prompts
from ...method import Change, Earlier, Material
from ...projections import ProjectionLayout
from .adaptation import CnsAdaptation
from .change import CnsChange
from .prepared import SelectedNeurons
from .scores import CONTRASTIVE, Contrast, Evidence
from .scores.contrastive import captions_without
from .selection import select_neurons
from .settings import CnsSelection, CnsTraining


class Cns:
    """Concept Neuron Selection."""

    name = "cns"
    prior = "image-free"
    Selection = CnsSelection
    Training = CnsTraining

    def prepare(self, material: Material, settings: CnsSelection) -> SelectedNeurons:
        """Select neurons by the concept's captions and the calibration prompts."""
        prompts = calibration_prompts(settings.calibration_prompts)
        own = material.captions
        without = captions_without(material.taught) if settings.score == CONTRASTIVE else ()
        features = material.features((*own, *without), prompts, settings.tokens)
        captions, general = ([Evidence(x) for x in group] for group in features)
        concept: Sequence[Evidence | Contrast] = captions
        if without:
            concept = [Contrast(captions[: len(own)], captions[len(own) :])]
        return SelectedNeurons(
            select_neurons(material.weights(), material.layout, concept, general, settings)
        )

    def start(
        self, prepared: SelectedNeurons, earlier: Earlier, settings: CnsTraining, device: torch.device
    ) -> CnsAdaptation:
        return CnsAdaptation(prepared.mask, earlier, settings, device)

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Change:
        return CnsChange.read(layout, tensors)
