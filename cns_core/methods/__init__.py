"""Methods of learning by name. A method is one file or folder here and a line in `METHODS`."""

from __future__ import annotations

from ..method import Method
from .cns import Cns
from .dense_kv import DenseKv
from .random_entries import RandomEntries

METHODS: dict[str, Method] = {method.name: method for method in (Cns(), RandomEntries(), DenseKv())}

__all__ = ["METHODS"]
