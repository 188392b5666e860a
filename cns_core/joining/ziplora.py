"""ZipLoRA (2311.13600): a factor on each column of a subject's change and of a style's, learned so that both
still do what they did, and rarely use the same column.

    D = D_c diag(m_c) + D_s diag(m_s)
    min over m_c, m_s of  ||(D - D_c) X_c|| + ||(D - D_s) X_s|| + overlap |m_c| . |m_s|

for each projection, from m = 1, by Adam. The paper measures both terms on what the whole U-Net predicts for
noised pictures (SDXL, 100 steps, lambda 0.01). Keys and values read text features alone, so we measure them
there: squared, as a share of what each change does on its own captions. That is a quadratic form in m, made
of second moments: no picture is drawn, and the result is the same every time. The overlap is a mean over the
columns, so that lambda weighs the same for every width. The paper's |m_c . m_s| is equal to it while no
factor is negative; it could be 0 by opposite signs, though both move the same columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..projections import ProjectionLayout
from ..settings import number, whole
from .change import JoinedChange
from .maps import Columns
from .rule import Evidence, Reading


@dataclass(frozen=True)
class ZipSettings(Reading):
    """What is read, and how the factors are learned."""

    overlap: float = number(
        0.01,
        0,
        100,
        "ZipLoRA: lambda, how much it costs that both changes use a column. Paper: 0.01.",
        step=0.01,
        digits=9,
    )
    merge_steps: int = whole(100, 1, 10_000, "ZipLoRA: steps of Adam. Paper: 100.", rare=True)
    merge_lr: float = number(
        0.01, 1e-6, 1, "ZipLoRA: learning rate of the factors. Paper: 0.01.", step=1e-3, digits=9, rare=True
    )


class Zipped:
    """evidence: of two memories."""

    def __init__(self, evidence: Evidence, settings: ZipSettings) -> None:
        self._own, self._settings = evidence.own, settings

    def maps(self, changes: Sequence[Tensor]) -> list[Columns]:
        width = len(self._own[0])
        form, pull = torch.zeros(2 * width, 2 * width).double(), torch.zeros(2 * width).double()
        both = torch.cat(list(changes), 1)
        products = both.T @ both
        for place, moment in enumerate(self._own):
            # ||(D - D_i) X_i||^2 is (m - a)^T Q (m - a), where a has ones in the place of m_i.
            alone = torch.zeros_like(pull)
            alone[place * width : (place + 1) * width] = 1
            own = products * moment.repeat(2, 2)
            size = alone @ own @ alone
            if size > 0:  # else it changes nothing of its own captions
                form += own / size
                pull += own @ alone / size
        return [Columns(each.float()) for each in _learned(form, pull, self._settings).split(width)]


class ZipLora:
    """A subject and a style, or any other two memories."""

    name = "ziplora"
    Settings = ZipSettings
    reads_text = True
    most: int | None = 2

    def start(self, evidence: Evidence, settings: ZipSettings) -> Zipped:
        return Zipped(evidence, settings)

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> JoinedChange:
        return JoinedChange.read(self.name, layout, tensors)


def _learned(form: Tensor, pull: Tensor, settings: ZipSettings) -> Tensor:
    """m_c and m_s `(2 d,)`: where m^T form m - 2 pull^T m and the overlap together are small."""
    factors = torch.ones_like(pull)
    width = len(pull) // 2
    adam = torch.optim.Adam([factors], lr=settings.merge_lr)
    for _ in range(settings.merge_steps):
        others = factors.roll(width)  # of the other change, for the same column
        overlap = factors.sign() * others.abs() / width
        factors.grad = 2 * (form @ factors - pull) + settings.overlap * overlap
        adam.step()
    return factors
