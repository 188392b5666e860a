"""The families of models that can be taught. A family is one file here and a line in `FAMILIES`."""

from __future__ import annotations

from .family import Family
from .sd1 import SD1
from .sd2 import SD2
from .sdxl import SDXL

FAMILIES: dict[str, Family] = {family.name: family for family in (SD1, SD2, SDXL)}
SUPPORTED = ", ".join(family.title for family in FAMILIES.values())

__all__ = ["FAMILIES", "SUPPORTED", "Family"]
