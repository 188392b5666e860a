"""The paper's ablation (Table 2): as many entries as CNS selects, but any, trained as CNS trains its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..method import Material
from ..settings import whole
from .cns import Cns
from .cns.masks import NeuronMask
from .cns.prepared import SelectedNeurons
from .cns.settings import CnsSelection


@dataclass(frozen=True)
class RandomSelection(CnsSelection):
    """How many entries CNS would take, and the seed of those that are taken instead."""

    seed: int = whole(0, 0, 2**64 - 1, "Of the choice.")


class RandomEntries(Cns):
    """Random entries of equal number."""

    name = "random entries"
    Selection = RandomSelection

    def prepare(self, material: Material, settings: RandomSelection) -> SelectedNeurons:  # type: ignore[override]
        """Select by CNS, then draw a mask of the same share."""
        selection = super().prepare(material, settings).selection
        share, layout = selection.concept_mask.share(), material.layout
        generator = torch.Generator().manual_seed(settings.seed)
        drawn = {name: torch.rand(shape, generator=generator) < share for name, shape, _ in layout.slices()}
        return SelectedNeurons(replace(selection, concept_mask=NeuronMask.from_dense(layout, drawn)))
