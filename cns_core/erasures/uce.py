"""Unified concept editing (UCE, 2308.14761): keys and values of some words become those of others.

    W_t = (sum v*_i c_i^T + lambda W + sum_keep W c_j c_j^T) S^-1
    S   =  sum     c_i c_i^T + lambda I + sum_keep   c_j c_j^T

with v*_i = W c*_i, the keys or values that the words are led to, and the weights W that are there now, with
all that was learned before. Inserted, W stands at the left, and the rest is one map M of text features for
all projections, with a rank no higher than there are features c_i:

    W_t = W (1 + M),    M = sum (c*_i - c_i) c_i^T S^-1

Where the paper sums over a list of prompts to keep, we take second moments of thousands, as guarded
directions do: of general prompts, of what the user keeps, of the words to fall back on, and of every concept
of the memory. Each is a mean over its prompts, so that a thousand general ones do not drown one erased word:
summed as in the paper they would hold it where it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..projections import ProjectionLayout
from ..settings import check, number
from .change import ErasedChange
from .kept import Kept
from .pairs import Pairs

_LEFT_OUT = 1e-5  # of the energy of what M moves: a third of a per cent in amplitude


@dataclass(frozen=True)
class UceSettings(Kept):
    """How much is erased and how much is kept."""

    erase_weight: float = number(
        1.0,
        1e-3,
        1e4,
        "How much each erased word weighs against each thing to keep. Paper: 1. More goes farther, and takes "
        "more of its neighbours along.",
        step=0.5,
    )
    keep_weight: float = number(
        10.0,
        0,
        1e4,
        "How much each thing weighs that stays, all general prompts together being one. Paper: 1 for each "
        "prompt of a list.",
        step=0.5,
        rare=True,
    )
    stay: float = number(
        0.5,
        1e-6,
        1e6,
        "lambda of the paper, 0.5 there: how much every direction of the text features stays, even one that "
        "nothing speaks of.",
        step=0.1,
        digits=9,
        rare=True,
    )

    def __post_init__(self) -> None:
        check(self)


class Uce:
    """Unified concept editing."""

    name = "uce"
    Settings = UceSettings

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> ErasedChange:
        """A change from what a file keeps of it; ValueError for other tensors."""
        return ErasedChange.read(layout, tensors)


def feature_map(pairs: Pairs, kept: Tensor, settings: UceSettings) -> tuple[Tensor, Tensor]:
    """M as first `(d, r)` @ second `(r, d)`, float64.

    kept: the sum of the second moments `(d, d)` of all that stays.

    It is cut where what is left out of M S^1/2, how far all that S speaks of is moved, is not to be seen.
    """
    weight, eye = settings.erase_weight, torch.eye(len(kept), dtype=torch.float64)
    total = weight * pairs.moment() + settings.keep_weight * kept.double() + settings.stay * eye
    root = torch.linalg.cholesky((total + total.T) / 2)  # S = L L^T, so that M L = E L^-T
    wanted = weight * (pairs.targets - pairs.features).T @ pairs.features
    whitened = torch.linalg.solve_triangular(root, wanted.T, upper=False).T
    left, sizes, right = torch.linalg.svd(whitened)
    energy = sizes.square()
    beyond = energy.flip(0).cumsum(0).flip(0)  # of each and those after it
    r = int((beyond > _LEFT_OUT * energy.sum()).sum())
    second = torch.linalg.solve_triangular(root, right[:r], upper=False, left=False)
    return left[:, :r] * sizes[:r], second


def erased(
    layout: ProjectionLayout, weights: Mapping[str, Tensor], first: Tensor, second: Tensor
) -> ErasedChange:
    """What a map of features, first @ second, makes of every projection. ValueError where a number is too
    large to be kept.

    weights: W `(out, text_dim)` as they are, with all that was learned before.
    """
    ups = torch.cat([(weights[name].to("cpu", torch.float64) @ first) for name in layout.names])
    # A column of long numbers is kept as exactly as one of short ones.
    sizes = ups.abs().amax(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
    return ErasedChange(
        layout, (ups / sizes).half().contiguous(), (second * sizes[:, None]).float().contiguous()
    )
