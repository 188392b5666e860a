"""Eq. 3, the score of Wanda (2306.11695): magnitude times the norm of what is read."""

from __future__ import annotations

from .score import Array, Evidence, Rows


def wanda(rows: Rows, evidence: Evidence) -> Array:
    """`S[i,j] = |W[i,j]| * ||X[:,j]||_2`, the norm of input feature j over the caption's tokens."""
    return rows.magnitude * evidence.feature_norms
