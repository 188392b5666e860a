"""Methods of learning by name. A method is one file or folder here and a line in `_ALL`."""

from __future__ import annotations

from ..method import Method
from .adapters import LOHA, LOKR, LORA
from .cns import Cns
from .dense_kv import DenseKv
from .dreambooth import DreamBooth
from .directions import GuardedDirections
from .guarded_neurons import GuardedNeurons
from .oft import Oft
from .random_entries import RandomEntries
from .token_only import TokenOnly

_ALL: tuple[Method, ...] = (
    GuardedDirections(),
    Cns(),
    GuardedNeurons(),
    RandomEntries(),
    DenseKv(),
    TokenOnly(),
    LORA,
    LOHA,
    LOKR,
    DreamBooth(),
    Oft(),
)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}

__all__ = ["METHODS"]
