"""Methods of learning by name. A method is one file or folder here and a line in `_ALL`."""

from __future__ import annotations

from ..method import Method
from .adapters import LOHA, LOKR, LORA
from .cns import Cns
from .cones import Cones
from .dense_kv import DenseKv
from .directions import GuardedDirections
from .dreambooth import DreamBooth
from .fisher import CnsWithFisher
from .gradient_neurons import GradientNeurons
from .guarded_neurons import GuardedNeurons
from .l2dm import L2dm
from .low_rank import LOW_RANK
from .oft import Oft
from .perfusion import Perfusion
from .random_entries import RandomEntries
from .scns import Scns
from .token_only import TokenOnly

_ALL: tuple[Method, ...] = (
    GuardedDirections(),
    Cns(),
    GuardedNeurons(),
    RandomEntries(),
    GradientNeurons(),
    CnsWithFisher(),
    Scns(),
    Cones(),
    DenseKv(),
    L2dm(),
    TokenOnly(),
    LORA,
    LOHA,
    LOKR,
    DreamBooth(),
    Oft(),
    *LOW_RANK,
    Perfusion(),
)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}

__all__ = ["METHODS"]
