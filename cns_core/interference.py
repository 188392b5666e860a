"""How far each concept's share of the weights moves what prompts of others read: known before a picture is
drawn, for keys and values read text features alone.

What a concept's being there changes, D `(out, d)` of each projection, moves keys and values of prompts with
the second moment C `(d, d)` by tr(D C D^T) in the mean square (`moments.py`); of all projections together by
tr(C G), with the concept's Gram matrix G = sum of D^T D.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .memory import ConceptMemory, LearnedConcept
from .summed import Summed
from .within import is_sum

GENERAL = "general prompts"
_HEARD = 0.05  # of keys and values, root mean square, from which a picture looks a little different


@dataclass(frozen=True)
class Interference:
    """moves: (token, group of prompts) -> by how much the concept moves their keys and values: the root mean
    square of what its being there changes, over that of the untouched ones. A group is a handle, whose
    captions are meant, or `GENERAL`.
    """

    moves: Mapping[tuple[str, str], float]

    def told(self, whose: Sequence[str], groups: Sequence[str]) -> list[str]:
        """A line for each concept of `whose` and group of prompts other than its own."""
        return [
            f"`{token}` moves keys and values of {_named(group)} by {self.moves[token, group]:.2%}"
            + (", which is to be seen" if self.moves[token, group] > _HEARD else "")
            for token in whose
            for group in groups
            if token != group
        ]


def interference(
    memory: ConceptMemory, whose: Sequence[str], moments: Mapping[str, Tensor], gram: Tensor
) -> Interference:
    """Of concepts of a memory, by their handles.

    Args:
        moments: C `(d, d)` of each group of prompts.
        gram: W^T W `(d, d)` over all untouched projections.
    """
    moves = {}
    for token in whose:
        own = _gram(memory, memory.concept(token))
        for group, moment in moments.items():
            untouched = float((gram * moment).sum())
            heard = max(0.0, float((own * moment).sum()))
            moves[token, group] = math.sqrt(heard / untouched) if untouched > 0 else 0.0
    return Interference(moves)


def _gram(memory: ConceptMemory, concept: LearnedConcept) -> Tensor:
    """G `(d, d)` float64, of what a concept's being there changes."""
    width = memory.layout.shapes[0][1]
    total = torch.zeros(width, width, dtype=torch.float64)
    if all(is_sum(c.change) for c in memory.concepts):
        for name in memory.layout.names:
            if name not in concept.change.layout:
                continue
            if isinstance(concept.change, Summed):
                difference = concept.change.difference(name).float()
                total += (difference.T @ difference).double()
            elif (added := concept.change.added(name)) is not None:
                up, down = (part.double() for part in added)
                total += down.T @ (up.T @ up) @ down
        return total
    with_it, without = memory.laid(), memory.without(concept.handle).laid()
    for name in memory.layout.names:
        # In full precision: long numbers cancel where a concept is quiet.
        change = with_it[name].in_full() - without[name].in_full()
        total += (change.T @ change).double()
    return total


def _named(group: str) -> str:
    return group if group == GENERAL else f"`{group}`"
