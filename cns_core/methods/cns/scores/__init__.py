"""Scores by the names under which users choose them. A score is one file here and a line in `SCORES`."""

from __future__ import annotations

from .score import Array, Evidence, Rows, Score
from .wanda import wanda

SCORES: dict[str, Score] = {"magnitude x feature norm": wanda}

__all__ = ["SCORES", "Array", "Evidence", "Rows", "Score"]
