"""Concept neurons, held still where something else would hear them.

L_reg (Eq. 7) holds entries to their values whatever they do. What a change D of a projection does to what is
protected is tr(D P D^T) (`protected.py`): the same wish in the measure that counts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..method import Change, Earlier, Material
from ..protected import Protected, Protection, protect
from ..settings import check, number
from .cns import Cns
from .cns.adaptation import CnsAdaptation
from .cns.prepared import SelectedNeurons
from .cns.settings import CnsSelection, CnsTraining


@dataclass(frozen=True)
class GuardedSelection(Protection, CnsSelection):
    """How neurons are selected, and what is protected."""


@dataclass(frozen=True)
class GuardedTraining(CnsTraining):
    """Eq. 7's two terms and the guard; each may be 0."""

    guard: float = number(
        0.1,
        0,
        1e6,
        "How hard neurons are held where something protected would hear them.",
        step=0.01,
        digits=9,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class GuardedPrepared(SelectedNeurons):
    """Selected neurons, and what is protected."""

    protected: Protected

    def check(self, earlier: Earlier) -> None:
        self.protected.check(earlier)

    def outcome(self, change: Change) -> str:
        layout = self.protected.layout
        # Entries that an earlier concept moved count whole: what they were before is not known here.
        laid = [change.lay(n, torch.zeros(s, dtype=torch.float16)).float() for n, s, _ in layout.slices()]
        return "\n".join(f"- {line}" for line in self.protected.told(torch.cat(laid)))


class GuardedAdaptation(CnsAdaptation):
    """Neurons with the guard beside L_reg."""

    def __init__(
        self, prepared: GuardedPrepared, earlier: Earlier, settings: GuardedTraining, device: torch.device
    ) -> None:
        super().__init__(prepared.mask, earlier, settings, device)
        self._guard, self._sizes = settings.guard, prepared.protected.sizes
        self._moment = prepared.protected.moment().to(device, torch.float32)
        self._before = self.values.detach().clone()

    def penalties(self) -> dict[str, Tensor]:
        """L_reg; and the mean over projections of guard tr(D P D^T) / (rows size^2), D = W_t - W_{t-1}."""
        moved = (self.values - self._before).split([len(p) for p in self._positions.values()])
        heard = self.values.new_zeros(())
        for (name, positions), values in zip(self._positions.items(), moved, strict=True):
            rows, width = self.layout.shape(name)
            change = values.new_zeros(rows * width).index_put((positions.long(),), values).view(rows, width)
            heard = heard + (change @ self._moment * change).sum() / (rows * self._sizes[name] ** 2)
        return {**super().penalties(), "guard": self._guard * heard / len(self._positions)}


class GuardedNeurons(Cns):
    """Concept neurons with a guard."""

    name = "guarded neurons"
    Selection = GuardedSelection
    Training = GuardedTraining

    def prepare(self, material: Material, settings: GuardedSelection) -> GuardedPrepared:  # type: ignore[override]
        """Select neurons, and measure what is protected."""
        protection = Protection(**{f.name: getattr(settings, f.name) for f in fields(Protection)})
        selection = super().prepare(material, settings).selection
        return GuardedPrepared(selection, protect(material, protection))

    def start(  # type: ignore[override]
        self, prepared: GuardedPrepared, earlier: Earlier, settings: GuardedTraining, device: torch.device
    ) -> GuardedAdaptation:
        return GuardedAdaptation(prepared, earlier, settings, device)
