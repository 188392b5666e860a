"""Orthogonal Adaptation (2312.02432): `W_t = W_{t-1} + A B^T`, B a frozen slice of one orthogonal basis.

Eq. 4. Slices of different concepts are orthogonal, `B_i^T B_j = 0`: none answers along another's directions.

The paper draws a random subset of the basis for each concept, since its users know nothing of each other; a
memory knows what is taken, so each concept gets what is left, and never shares a direction. There each weight
has a basis of its own; keys and values all read the same features, so here they share one. The paper learns
concepts apart, in all linear layers and with tokens of their own for each layer, and adds 0.6 of each; here
each is learned on top of those before it, and all of it is added.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...method import Change, Earlier
from ...settings import check, number, whole
from .adaptation import LowRankAdaptation
from .change import LowRankChange
from .method import EveryProjection, LowRankMethod

# |cosine| of two directions from which on they are the same one; those of two random bases are near 0.
_THE_SAME = 0.5


@dataclass(frozen=True)
class OrthogonalTraining:
    """How large a slice is, and how it is trained."""

    rank: int = whole(
        20, 1, 256, "How many directions of the text features each concept gets for itself. Paper: 20."
    )
    weight_lr: float = number(1e-5, 0, 1, "Learning rate of the weights. Paper: 1e-5.", step=1e-6, digits=9)
    basis_seed: int = whole(
        0,
        0,
        2**64 - 1,
        "Of the orthogonal basis: the same for all concepts of a memory. Memories that are to become one "
        "want different ones, or their concepts take the same directions.",
        rare=True,
    )

    def __post_init__(self) -> None:
        check(self)


class OrthogonalAdaptation(LowRankMethod):
    """Orthogonal Adaptation."""

    name = "orthogonal adaptation"
    Training = OrthogonalTraining

    def start(
        self, prepared: EveryProjection, earlier: Earlier, settings: OrthogonalTraining, device: torch.device
    ) -> LowRankAdaptation:
        basis = orthogonal_basis(earlier.layout.shapes[0][1], settings.basis_seed)
        directions = free_directions(basis, settings.rank, earlier.left().values())
        return LowRankAdaptation(earlier, settings.weight_lr, directions[None], device, learns_downs=False)


def orthogonal_basis(text_dim: int, seed: int) -> Tensor:
    """Directions of text-feature space as rows, float32 `(text_dim, text_dim)`: a random rotation."""
    generator = torch.Generator().manual_seed(seed)
    found: Tensor = torch.linalg.qr(torch.randn(text_dim, text_dim, generator=generator).double())[0]
    return found.float()


def free_directions(basis: Tensor, count: int, earlier: Iterable[Change]) -> Tensor:
    """The first rows of a basis that no earlier concept has, `(count, text_dim)`. ValueError when too few are
    left.
    """
    free = torch.ones(len(basis), dtype=torch.bool)
    concepts = 0
    for change in earlier:
        if isinstance(change, LowRankChange) and change.shared:
            taken = (basis @ change.downs[0].float().T).abs().amax(dim=1) > _THE_SAME
            free &= ~taken
            concepts += bool(taken.any())
    left = int(free.sum())
    if count > left:
        raise ValueError(
            f"Text features have {len(basis)} directions, and {concepts} earlier concept(s) have taken "
            f"{len(basis) - left} of them: {left} are left, but rank is {count}. Lower rank, forget a "
            "concept, or learn this one in a memory of its own."
        )
    return basis[free][:count]
