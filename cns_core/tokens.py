"""The new token: learned vectors for each text encoder, spliced in where it stands in a prompt.

A text encoder is named as the host names it (`clip_l`, `clip_g`, `clip_h`); its token table has shape
`(vocabulary, dim)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# encoder name -> vectors (n, dim), as many for each encoder
TokenVectors = dict[str, Tensor]

MAX_LEARNED = 8  # vectors: about as many as Textual Inversion has been tried with
MAX_VECTORS = 75  # of a token of any origin: one pass of the text encoder reads no more

_NOISE = 0.1  # of a row's root mean square


def initial_vectors(
    tables: Mapping[str, Tensor], class_word_ids: Mapping[str, Sequence[int]], count: int = 1, seed: int = 0
) -> TokenVectors:
    """Start from the class word, float32 `(count, dim)` for each encoder.

    One vector is the mean of the word's rows in the token table (Custom Diffusion). Several are its rows in
    turn. A row that comes again gets a little noise by `seed`: the same vector twice would be moved nearly
    alike, since only its place tells the two apart.
    """
    chance = torch.Generator().manual_seed(seed)
    vectors: TokenVectors = {}
    for encoder, table in tables.items():
        ids = list(class_word_ids[encoder])
        if not ids:
            raise ValueError(
                f"The class word has no tokens in text encoder {encoder}; use an ordinary word such as 'dog'."
            )
        rows = table[torch.tensor(ids, device=table.device)].float()
        if count == 1:
            vectors[encoder] = rows.mean(dim=0, keepdim=True).cpu()
            continue
        turns = [place % len(ids) for place in range(count)]
        found = rows.cpu()[turns]
        for place, turn in enumerate(turns):
            if ids[turn] in [ids[before] for before in turns[:place]]:
                size = _NOISE * found[place].square().mean().sqrt()
                found[place] += size * torch.randn(found.shape[1], generator=chance)
        vectors[encoder] = found
    return vectors
