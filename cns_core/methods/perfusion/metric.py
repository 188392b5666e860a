"""The metric of text features and the rank-one edit in it: Eq. 3, and the basis for several concepts."""

from __future__ import annotations

import torch
from torch import Tensor

# The least share of a target input's energy that counts as its own, however alike earlier ones are: to tell
# them apart by less takes answers so large that everything else hears them.
_OWN = 0.01


def inverse_metric(moment: Tensor, floor: float) -> Tensor:
    """C^-1 `(d, d)` float64, of the second moment `(d, d)` of general prompts plus floor tr(C)/d I.

    ValueError for a moment of nothing.
    """
    wide = moment.double()
    mean = float(wide.trace()) / len(wide)
    if not mean > 0:
        raise ValueError(
            f"The text features of the general prompts have an energy of {mean:g}; it must be above 0. "
            "Take more general prompts."
        )
    inverse = torch.linalg.inv(wide + floor * mean * torch.eye(len(wide), dtype=wide.dtype))
    symmetric: Tensor = (inverse + inverse.T) / 2
    return symmetric


def answer_direction(target: Tensor, earlier: Tensor, inverse: Tensor) -> Tensor:
    """What a rank-one edit answers to: the row g `(d,)` with g i* = 1 and g i_s = 0.

    Without earlier concepts g x is sim(x) = i*^T C^-1 x / ||i*||^2. With them

        g = u^T C^-1 / (u^T C^-1 i*),    u = i* - I (I^T C^-1 I)^-1 I^T C^-1 i*,

    the part of i* that is orthogonal, in the metric, to all i_s. Less is taken out of i* where hardly
    anything would be left of it; the i_s are then answered, too.

    Args:
        target: i* `(d,)` float64, other than 0.
        earlier: I^T, the target inputs i_s of earlier concepts `(s, d)` float64.
        inverse: C^-1 `(d, d)` float64.
    """
    mapped = earlier @ inverse  # (s, d)
    theirs = earlier.T @ (torch.linalg.pinv(mapped @ earlier.T, hermitian=True) @ (mapped @ target))
    row, of_theirs = inverse @ target, inverse @ theirs
    shared = float((target @ of_theirs) / (target @ row))
    if shared > 1 - _OWN:
        of_theirs = of_theirs * ((1 - _OWN) / shared)
    row -= of_theirs
    answer: Tensor = row / (row @ target)
    return answer
