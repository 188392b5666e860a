"""Contrastive saliency, the score of Forget-It-All (2601.06163, Eq. 1 and 2): what answers to the concept and
not to the rest of its captions.

    U[i,j] = |W[i,j]| ||X_j|| |cos(X_j, Y_i)|      S = max(0, mean_concept U - mean_without U - std_without U)

`X_j` is input feature j over a caption's tokens and `Y_i` output i over the same, `Y = X W^T`. As
`||X_j|| |cos(X_j, Y_i)| = |<X_j, Y_i>| / ||Y_i||`, U is how much entry (i, j) has to do with its output.

The paper prunes feed-forward layers, whose input has a place for each patch of the picture. Captions have
different numbers of tokens, so U is divided by the root of that number here; else every word more would count
as contrast. Where S is 0 an entry is never chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

from ....method import Taught
from .score import Array, Contrast, Evidence, Rows

_TINY = 1e-12  # of an output that no token moves


def contrastive(rows: Rows, evidence: Evidence | Contrast) -> Array:
    """S of a concept; U of a caption by itself, of which there is nothing to contrast."""
    if isinstance(evidence, Evidence):
        return response(rows, evidence)
    concept, without = ([response(rows, x) for x in group] for group in (evidence.concept, evidence.without))
    mean = sum(without) / len(without)
    spread = (sum((u - mean) ** 2 for u in without) / len(without)) ** 0.5
    saliency = sum(concept) / len(concept) - mean - spread
    saliency[saliency <= 0] = float("-inf")
    return saliency


def response(rows: Rows, evidence: Evidence) -> Array:
    """U, over the root of the number of tokens, `(rows, text_dim)`."""
    x = evidence.array
    y = x @ rows.array.T  # (tokens, rows)
    shared = abs(y.T @ x) / ((y * y).sum(0) ** 0.5 + _TINY)[:, None]
    return rows.magnitude * shared / len(x) ** 0.5


def captions_without(taught: Taught) -> Sequence[str]:
    """The captions with nothing in the token's place. ValueError when nothing is left of them."""
    words = [" ".join(caption.replace(taught.token, " ").split()) for caption in taught.captions]
    if not (left := list(dict.fromkeys(filter(None, words)))):
        raise ValueError(
            f"The contrastive score sets captions against the same without {taught.token}, but there are no "
            f"other words in them: {', '.join(taught.captions[:3])}. Write longer captions, or choose "
            "another score."
        )
    return left
