"""Ways to take something out of a model by name. Each is a line in `ERASURES`, by which files are read."""

from __future__ import annotations

from .uce import Uce

ERASURES: dict[str, Uce] = {Uce.name: Uce()}

__all__ = ["ERASURES"]
