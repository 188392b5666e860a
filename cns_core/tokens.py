"""The new token: one learned vector per text encoder, spliced in where the token stands in a prompt.

A text encoder is named as the host names it (`clip_l`, `clip_g`, `clip_h`); its token table has shape
`(vocabulary, dim)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# encoder name -> vector (dim,)
TokenVectors = dict[str, Tensor]


def initial_vectors(
    tables: Mapping[str, Tensor], class_word_ids: Mapping[str, Sequence[int]]
) -> TokenVectors:
    """Start from the class word (Custom Diffusion):
    the mean of its rows in each token table, float32 `(dim,)`.
    """
    vectors: TokenVectors = {}
    for encoder, table in tables.items():
        ids = list(class_word_ids[encoder])
        if not ids:
            raise ValueError(
                f"The class word has no tokens in text encoder {encoder}; use an ordinary word such as 'dog'."
            )
        vectors[encoder] = table[torch.tensor(ids, device=table.device)].float().mean(dim=0).cpu()
    return vectors
