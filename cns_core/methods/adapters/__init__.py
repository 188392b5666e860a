"""LoRA, LoHa and LoKr: a small adapter beside each of some matrices, learned alone.

Each concept has its own, learned on top of those before it, and all of them are summed. What LoRA's users
have besides, an adapter of the text encoder, is left out: here the token's vector takes its part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...method import Change, Earlier, Material
from ...projections import ProjectionLayout
from ..shares import AllOf
from .adaptation import AdapterAdaptation
from .change import AdapterChange
from .forms import Form, LohaForm, LokrForm, LoraForm
from .settings import AdapterSelection, AdapterTraining


@dataclass(frozen=True)
class Adapted(AllOf):
    """Every matrix of a scope has an adapter."""

    form: Form
    scope: str

    def report(self, parameters: int, earlier: Mapping[str, Change]) -> str:
        return (
            f"- {self.form.name} beside {len(self.layout.names)} matrices ({self.scope}): "
            f"{self.layout.total / parameters:.2%} of the U-Net"
        )


class Adapters:
    """One form of adapters as a method."""

    prior = "image-free"
    Selection = AdapterSelection
    Training = AdapterTraining

    def __init__(self, form: Form) -> None:
        self.form, self.name = form, form.name

    def prepare(self, material: Material, settings: AdapterSelection) -> Adapted:
        return Adapted(material.weights_in(settings.weights), self.form, settings.weights)

    def start(
        self, prepared: Adapted, earlier: Earlier, settings: AdapterTraining, device: torch.device
    ) -> AdapterAdaptation:
        return AdapterAdaptation(self.form, earlier, settings, device)

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Change:
        return AdapterChange.read(self.form, layout, tensors)


LORA, LOHA, LOKR = Adapters(LoraForm()), Adapters(LohaForm()), Adapters(LokrForm())
