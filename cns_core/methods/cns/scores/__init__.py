"""Scores by the names under which users choose them. A score is one file here and a line in `SCORES`."""

from __future__ import annotations

from .contrastive import contrastive
from .score import Array, Contrast, Evidence, Rows, Score
from .wanda import wanda

CONTRASTIVE = "contrastive"
SCORES: dict[str, Score] = {"magnitude x feature norm": wanda, CONTRASTIVE: contrastive}

__all__ = ["CONTRASTIVE", "SCORES", "Array", "Contrast", "Evidence", "Rows", "Score"]
