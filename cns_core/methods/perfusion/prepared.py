"""What Perfusion prepares: the metric of text features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...method import Change, Earlier, Taught
from ...protected import Protected
from ..shares import AllOf
from .change import PerfusionChange


@dataclass(frozen=True, eq=False)
class Locked(AllOf):
    """One edit of all keys and values.

    inverse: C^-1 `(text_dim, text_dim)` float64; taught: the concept; measured: what general prompts, its
    class word and earlier concepts say, to tell afterwards how far each has moved.
    """

    inverse: Tensor
    taught: Taught
    measured: Protected

    def check(self, earlier: Earlier) -> None:
        self.measured.check(earlier)

    def report(self, parameters: int, earlier: Mapping[str, Change]) -> str:
        rows = sum(out for name, (out, _), _ in self.layout.slices() if name.endswith("to_v"))
        lines = [
            f"{rows:,} values: {rows / parameters:.3%} of the U-Net; its keys are locked to those of "
            f"{self.taught.class_word!r}",
            f"the metric: {len(self.measured.prompts):,} prompts",
        ]
        apart = [token for token, change in earlier.items() if isinstance(change, PerfusionChange)]
        if apart:
            lines.append(f"it answers nothing where {', '.join(f'`{token}`' for token in apart)} is read")
        return "\n".join(f"- {line}" for line in lines)

    def outcome(self, change: Change) -> str:
        if not isinstance(change, PerfusionChange):
            raise TypeError(f"{type(change).__name__} was not learned by Perfusion.")
        laid = torch.cat([up @ down for up, down in map(change.added, self.layout.names)])
        return "\n".join(f"- {line}" for line in self.measured.told(laid))
