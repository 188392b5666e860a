"""The closed form of Custom Diffusion (2212.04488, Eq. 4 and its appendix): of all weights that answer the
concepts' captions exactly as the concepts' own weights do, the one that moves general prompts least.

    C = K_reg^T K_reg,    d = K_t C^-1,    W = W_0 + (V_t^T - W_0 K_t^T) (d K_t^T)^-1 d

with the features K_reg of general prompts, K_t of the concepts' captions, a row each, and V_t what each
concept's own weights make of its rows: V_t^T - W_0 K_t^T has D_i K_i^T for concept i. With second moments
C_i = K_i^T K_i the same is

    D = (sum_i D_i C_i) S^-1,    S = sum_i C_i + weight C,    weight -> 0

which needs no inverse as large as the number of rows, and holds where rows depend on each other, as they do
in several captions of one concept: the paper's own inverse does not exist there, and its code drops rows that
are equal. Rows that are nearly equal are as bad. The padding of two prompts differs in directions that hold
next to nothing of either, and with a weight of 0 the concepts are answered exactly there too: by all of K/V,
a panda and a style of the small base then left 1.3 and 1.7 % of what their own weights change, and keys and
values of general prompts moved by 18 times their length. So the weight stays at 0.01, which leaves a percent
more. It is gradient fusion at that weight, with a floor in place of the ridge. Where captions ask for more
than a matrix can do, it gives the least squares, and nothing is left to protect.

The paper takes 200 captions from LAION for C. We take thousands of general prompts, and a floor, so that
directions that these prompts happen to leave out are not free to move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..projections import ProjectionLayout
from ..settings import number
from .change import JoinedChange
from .gradient_fusion import Fused
from .rule import Evidence, Reading

_WEIGHT = 0.01  # where captions are a hundredth as loud as general prompts, they are answered by half


@dataclass(frozen=True)
class ClosedFormSettings(Reading):
    """What it reads, and how far directions stay that no prompt uses."""

    floor: float = number(
        0.3,
        1e-6,
        1,
        "Closed form: how much every direction is protected, even one that no general prompt uses: a share "
        "of their mean. The paper has none.",
        step=1e-3,
        digits=9,
        rare=True,
    )


class ClosedForm:
    """Any number of memories. weight: of general prompts against the captions."""

    name = "closed form"
    Settings = ClosedFormSettings
    reads_text = True
    most: int | None = None

    def __init__(self, weight: float = _WEIGHT) -> None:
        self._weight = weight

    def start(self, evidence: Evidence, settings: ClosedFormSettings) -> Fused:
        general = evidence.general
        one = torch.eye(len(general), dtype=general.dtype)
        protected = general + settings.floor * general.trace() / len(general) * one
        total = torch.stack(evidence.own).sum(dim=0) + self._weight * protected
        return Fused(evidence, torch.cholesky_inverse(torch.linalg.cholesky(total)))

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> JoinedChange:
        return JoinedChange.read(self.name, layout, tensors)
