"""Guarded directions: where a concept's captions are strong and everything that must stay is silent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_NOISE = 1e-6  # a gain that is smaller than this share of the first comes of rounding in the features


@dataclass(frozen=True, eq=False)
class Directions:
    """Directions of text-feature space.

    vectors: U `(d, r)` float64; the concept's captions answer to each with energy 1, u^T C_concept u = 1.
    gains: `(r,)` float64, falling: energy on the concept for each unit of energy on what is protected.
    """

    vectors: Tensor
    gains: Tensor


def guarded_directions(concept: Tensor, protected: Tensor, count: int, least_gain: float) -> Directions:
    """The first generalised eigenvectors of (C_concept, P): P^-1/2 C_concept P^-1/2 q = gain q, u = P^-1/2 q.

    Args:
        concept: second moment `(d, d)` of the concept's captions.
        protected: P `(d, d)`, positive definite.
        count: how many at most.
        least_gain: directions of less are not the concept's own, and are left out.

    Raises:
        ValueError: P is not positive definite.
    """
    values, basis = torch.linalg.eigh(protected.double())
    if float(values[0]) <= 0:
        raise ValueError(
            f"What is protected has an energy of {float(values[0]):.3g} in some direction; "
            "it must be above 0. Raise `floor`."
        )
    white = (basis / values.sqrt()) @ basis.T
    # Lower triangle alone is read, so rounding must not make the product unsymmetric.
    inner = white @ concept.double() @ white
    gains, rotated = torch.linalg.eigh((inner + inner.T) / 2)
    gains, rotated = gains.flip(0)[:count], rotated.flip(1)[:, :count]
    kept = int((gains >= max(least_gain, _NOISE * float(gains[0]), torch.finfo(torch.float64).tiny)).sum())
    gains, rotated = gains[:kept], rotated[:, :kept]
    return Directions(white @ rotated / gains.sqrt(), gains)
