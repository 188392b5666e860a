"""Ways to join concepts that were learned apart, all at once. Each is a file here and a line in `_ALL`."""

from __future__ import annotations

from .closed_form import ClosedForm
from .gradient_fusion import GradientFusion
from .rule import Joining
from .sum import Sum
from .ziplora import ZipLora

_ALL: tuple[Joining, ...] = (GradientFusion(), ClosedForm(), ZipLora(), Sum())

JOININGS: dict[str, Joining] = {rule.name: rule for rule in _ALL}

__all__ = ["JOININGS"]
