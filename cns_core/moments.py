"""Second moments of text features: what a change of a projection does to a set of prompts.

Keys and values read text features alone. A change D `(out, d)` of a projection adds `D x` to the key or value
of each feature x, so over prompts with features X `(tokens, d)` its mean squared effect is

    mean over prompts of ||X D^T||^2 = tr(D C D^T),    C = mean over prompts of X^T X.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def second_moment(prompts: Iterable[Tensor], text_dim: int) -> Tensor:
    """C `(d, d)` float64 on the CPU, of the features `(tokens, d)` of each prompt.

    A sum over the tokens and a mean over the prompts; zero where there are none.
    """
    total, count = torch.zeros(text_dim, text_dim, dtype=torch.float64), 0
    for features in prompts:
        rows = features.to("cpu", torch.float64)
        total.addmm_(rows.T, rows)
        count += 1
    return total / max(1, count)


def energy(change: Tensor, moment: Tensor) -> float:
    """tr(D C D^T): the mean squared effect of a change D `(out, d)` on the prompts of a moment `(d, d)`."""
    wide = change.to("cpu", torch.float64)
    return float((wide @ moment.double() * wide).sum())
