"""The selected neurons of a concept, and what they are in figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...method import Change
from ...projections import ProjectionLayout
from ..shares import Shares
from .masks import NeuronMask
from .selection import Selection


@dataclass(frozen=True)
class SelectedNeurons(Shares):
    """What CNS prepares for a concept."""

    selection: Selection

    @property
    def mask(self) -> NeuronMask:
        """The entries that may move."""
        return self.selection.concept_mask

    @property
    def layout(self) -> ProjectionLayout:
        return self.mask.layout

    def moving(self) -> dict[str, float]:
        counts = self.mask.count_per_projection()
        return {name: counts[name] / (out * width) for name, (out, width), _ in self.mask.layout.slices()}

    def overlap(self, change: Change) -> float:
        return self.mask.iou(self._moved_by(change))

    def report(self, parameters: int, earlier: Mapping[str, Change]) -> str:
        s, mask = self.selection, self.mask
        lines = [
            f"{mask.count():,} concept neurons: {mask.share():.2%} of K/V, "
            f"{mask.share_of(parameters):.3%} of the U-Net",
            f"top {s.top_percent:.3g} % per row; base neurons {s.base_mask.share():.2%}, general neurons "
            f"{s.general_mask.share():.2%} of K/V",
        ]
        for token, change in earlier.items():
            theirs = self._moved_by(change)
            shared = (mask & theirs).count()
            lines.append(
                f"shared with `{token}`: {shared:,} ({shared / mask.count():.1%} of these), IoU "
                f"{mask.iou(theirs):.3f}"
            )
        return "\n".join(f"- {line}" for line in lines)

    def _moved_by(self, change: Change) -> NeuronMask:
        layout = self.mask.layout
        return NeuronMask.from_dense(layout, {name: change.moved(name) for name in layout.names})
