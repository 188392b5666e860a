"""Eq. 3, the score of Wanda (2306.11695): magnitude times the norm of what is read."""

from __future__ import annotations

from torch import Tensor

from .score import Evidence, Rows


def wanda(rows: Rows, evidence: Evidence) -> Tensor:
    """`S[i,j] = |W[i,j]| * ||X[:,j]||_2`, the norm of input feature j over the caption's tokens."""
    norms: Tensor = evidence.features.norm(dim=0)
    return rows.weight.abs() * norms
