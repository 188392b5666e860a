"""Submodular concept neuron selection (SCNS, ICML 2026), rebuilt from its abstract, since neither its text
nor its code could be found.

What the abstract says: entries are chosen under a budget by how well their scores cover those of all
(facility location), less a Fisher-weighted risk for earlier concepts, greedily by gain for cost; 0.41 % of
all parameters a concept. What we made of it: a score profile is Eq. 3 in each caption of the concept,
above what general prompts have there (`greedy.py`); R is the Fisher information that earlier concepts keep
(`fisher/`), or 1 where one keeps none; an entry costs 1, and 1 more for each earlier concept that moved
it. Training is that of CNS with Fisher, which the next concept's risk needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...captions import CALIBRATION_COUNT, calibration_prompts
from ...method import Change, Earlier, Material
from ...projections import ProjectionLayout
from ...settings import check, choice, number, whole
from ...text_features import TOKEN_CHOICES
from ..chosen_later import ChosenLater, budget, entries_of
from ..cns.settings import CnsTraining
from ..fisher.adaptation import FisherAdaptation
from ..fisher.change import FisherChange, importance
from .greedy import Terms, choose


@dataclass(frozen=True)
class ScnsSelection:
    """How entries are chosen."""

    budget_percent: float = budget(18.4, "Paper: 0.41 % of all parameters, 18.4 % of K/V on SD 1.5.")
    risk: float = number(
        1.0,
        0,
        1e6,
        "What an entry must cover to be worth one that mattered to an earlier concept as much as entries do "
        "on average; 1 is what an entry covers on average.",
        step=0.1,
    )
    near: int = whole(
        16, 1, 256, "How many others an entry can stand for in its row, those most like it.", rare=True
    )
    tokens: str = choice(
        "caption words", TOKEN_CHOICES, "Which tokens of a caption enter the score.", rare=True
    )
    calibration_prompts: int = whole(
        CALIBRATION_COUNT,
        1,
        CALIBRATION_COUNT,
        "How many general prompts say what matters for images in general.",
        rare=True,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Profiled(ChosenLater):
    """magnitudes: |W_0| on the CPU; profiles: `(text_dim, captions)`."""

    magnitudes: Mapping[str, Tensor]
    profiles: Tensor
    settings: ScnsSelection


class Scns:
    """Concept neurons by submodular selection."""

    name = "scns"
    prior = "image-free"
    Selection = ScnsSelection
    Training = CnsTraining

    def prepare(self, material: Material, settings: ScnsSelection) -> Profiled:
        """What the captions say; what earlier concepts hold is known at the start of training."""
        prompts = calibration_prompts(settings.calibration_prompts)
        captions, general = material.features(material.captions, prompts, settings.tokens)
        return Profiled(
            material.layout,
            entries_of(material.layout, settings.budget_percent),
            "those that cover the captions best, chosen when training begins",
            {name: weight.abs().cpu() for name, weight in material.weights().items()},
            profiles_of(captions, general),
            settings,
        )

    def start(
        self, prepared: Profiled, earlier: Earlier, settings: CnsTraining, device: torch.device
    ) -> FisherAdaptation:
        s, layout = prepared.settings, prepared.layout
        costs = {name: torch.ones(shape) for name, shape, _ in layout.slices()}
        for change in earlier.left().values():
            for name, cost in costs.items():
                cost += change.moved(name)
        terms = Terms(prepared.magnitudes, prepared.profiles, importance(earlier), costs, s.risk, s.near)
        mask = choose(layout, terms, prepared.count, device)
        if not mask.count():
            raise ValueError(
                f"No entry is worth its risk: with risk {s.risk:g}, all that earlier concepts left matters "
                "more than what the captions would gain. Lower risk, or use captions that say more of the "
                "concept."
            )
        return FisherAdaptation(mask, earlier, settings, device)

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Change:
        return FisherChange.read(layout, tensors)


def profiles_of(captions: list[Tensor], general: list[Tensor]) -> Tensor:
    """p `(text_dim, captions)`, float32 on the CPU: how strong each input feature is in each caption, above
    its mean over general prompts. Root mean squares, not norms, since prompts differ in length.
    """
    strengths, usual = (
        torch.stack([x.square().mean(dim=0).sqrt() for x in group], dim=1).cpu()
        for group in (captions, general)
    )
    return strengths - usual.mean(dim=1, keepdim=True)
