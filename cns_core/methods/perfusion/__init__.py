"""Perfusion (2305.01644): a token's keys are locked to its class word's and its values learned, by one
rank-one edit of all keys and values.

The paper's Eq. 3, of a text feature x, with i* what the token reads as and o* what its key or value is to be:

    h(x) = W (x - sim(x) i*) + o* sigmoid((sim(x) - bias) / temperature)
    sim(x) = i*^T C^-1 x / (i*^T C^-1 i*),    C the second moment of text features

Here h(x) = W x + (o* - W i*) sim(x): the same without its gate, which is a plain change of the weights (and
ROME's, 2202.05262). So o* is heard wherever sim is above 0, in proportion, where the paper hears it above the
bias, and nearly whole. The gate depends on x, and no weight can hold it.

Several concepts are joined by a basis of their i* that is orthogonal in the metric, as in the paper. Each new
one answers nothing to those before it, and the sum of all edits is the joint one,

    W_0 + (O - W_0 I) G^-1 I^T C^-1,    G = I^T C^-1 I,

so that nothing is left to do at drawing. In the paper each is learned by itself. It also weighs the loss by
soft masks of the subject (here `masked_loss`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...method import Change, Earlier, Material
from ...projections import ProjectionLayout
from ...protected import Protection, protect
from .adaptation import PerfusionAdaptation
from .change import PerfusionChange
from .metric import inverse_metric
from .prepared import Locked
from .settings import PerfusionSelection, PerfusionTraining


class Perfusion:
    """Key-locked rank-one editing."""

    name = "perfusion"
    prior = "none"
    Selection = PerfusionSelection
    Training = PerfusionTraining

    def prepare(self, material: Material, settings: PerfusionSelection) -> Locked:
        """Measure the metric of text features."""
        measured = protect(material, Protection(general_prompts=settings.general_prompts))
        inverse = inverse_metric(measured.general, settings.floor)
        return Locked(material.layout, inverse, material.taught, measured)

    def start(
        self, prepared: Locked, earlier: Earlier, settings: PerfusionTraining, device: torch.device
    ) -> PerfusionAdaptation:
        return PerfusionAdaptation(prepared.taught, prepared.inverse, earlier, settings, device)

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Change:
        return PerfusionChange.read(layout, tensors)
