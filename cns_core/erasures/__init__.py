"""Ways to take something out of a model by name. Each is in one of two lists, by which files are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from ..method import Change
from ..projections import ProjectionLayout
from .by_training import TrainedErasure
from .esd import Esd
from .salun import SalUn
from .selective_amnesia import SelectiveAmnesia
from .uce import Uce


class Erasure(Protocol):
    """One of them. Settings: a frozen dataclass (`settings.py`), with what `kept.Kept` has."""

    name: str
    Settings: type[Any]

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Change:
        """A change from what a file keeps of it; ValueError for other tensors."""
        ...


_CLOSED_FORM: tuple[Erasure, ...] = (Uce(),)
_TRAINED = (Esd(), SalUn(), SelectiveAmnesia())

TRAINED: dict[str, TrainedErasure] = {erasure.name: erasure for erasure in _TRAINED}
ERASURES: dict[str, Erasure] = {erasure.name: erasure for erasure in (*_CLOSED_FORM, *_TRAINED)}

__all__ = ["ERASURES", "TRAINED", "Erasure"]
