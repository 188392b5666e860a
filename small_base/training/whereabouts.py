"""What the text encoder is to say at a name besides the name: which of two things it is.

CLIP's loss asks nothing of the kind, and without it a U-Net can hardly tell where which of two belongs: it
draws one of them twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..world.pictures import Batch
from ..world.wording import OPPOSITES, RELATIONS, relation
from ..world.world import World
from .text_encoder import WIDTH
from .tokenizer import Tokenizer

_PLACES = tuple(RELATIONS)


class Whereabouts(nn.Module):
    """Reads off, at the last token of each of two names, where its thing is beside the other."""

    def __init__(self, world: World, tokenizer: Tokenizer) -> None:
        super().__init__()
        names = tokenizer([thing.name for thing in world.objects])
        self._ids = [_inner(row.tolist(), tokenizer.end) for row in names]
        self.read = nn.Linear(WIDTH, len(_PLACES))

    def loss(self, states: Tensor, ids: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy over the pairs that stand clearly and are both called by their names.

        states: (B, n, 768) of token ids (B, n).
        """
        rows, positions, places = [], [], []
        for row, scene in enumerate(batch.scenes):
            if len(scene.placed) != 2 or (place := relation(*scene.placed)) is None:
                continue
            tokens = ids[row].tolist()
            found = mentions(tokens, [self._ids[placed.object_index] for placed in scene.placed])
            if found is not None:
                rows += [row, row]
                positions += found
                places += [_PLACES.index(place), _PLACES.index(OPPOSITES[place])]
        if not rows:
            return states.new_zeros(())
        logits = self.read(states[rows, positions].float())
        return F.cross_entropy(logits, torch.tensor(places, device=logits.device))


def mentions(tokens: Sequence[int], names: Sequence[Sequence[int]]) -> list[int] | None:
    """Where each of the names ends in a text of token ids; None unless each is there once.

    The longest is looked for first: a "book" is not the end of a "red book".
    """
    tokens, ends = list(tokens), [0] * len(names)
    for index in sorted(range(len(names)), key=lambda index: -len(names[index])):
        name = list(names[index])
        starts = [start for start in range(len(tokens)) if tokens[start : start + len(name)] == name]
        if len(starts) != 1:
            return None
        ends[index] = starts[0] + len(name) - 1
        tokens[starts[0] : starts[0] + len(name)] = [-1] * len(name)
    return ends


def _inner(row: Sequence[int], end: int) -> list[int]:
    return list(row[1 : row.index(end)])
