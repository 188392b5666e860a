"""Sums of low-rank changes: their inner products, and what is left of a sum at a given rank.

Change i of a matrix is `U_i D_i`, `(out, r_i)` by `(r_i, width)`. Concepts learned by guarded directions have
directions of their own, and two factors of one product can be told from each other by nothing: so only the
products count, whose inner products are

    <U_i D_i, U_j D_j> = sum over entries of (U_i^T U_j) * (D_i D_j^T)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ..joining.maps import Part
from ..method import Change

_LEFT_OUT = 1e-6  # of the largest singular value: what rounding leaves of directions that are not there


def inner_products(changes: Sequence[Change], on_progress: Callable[[int, int], None]) -> Tensor:
    """`(N, N)` float64, over all matrices of changes that are sums and have one layout.

    on_progress: `(done, total)`, of matrices; may raise to stop.
    """
    names = changes[0].layout.names
    total = torch.zeros(len(changes), len(changes), dtype=torch.float64)
    for done, name in enumerate(names):
        on_progress(done, len(names))
        parts = [factors(change, name) for change in changes]
        up, down = torch.cat([u for u, _ in parts], 1), torch.cat([d for _, d in parts])
        of_pairs = (up.T @ up) * (down @ down.T)
        belongs = torch.zeros(len(down), len(changes), dtype=torch.float64)
        row = 0
        for number, (_, own) in enumerate(parts):
            belongs[row : row + len(own), number] = 1
            row += len(own)
        total += belongs.T @ of_pairs @ belongs
    return total


def factors(change: Change, name: str) -> tuple[Tensor, Tensor]:
    """up and down of what a change adds to a matrix, float64."""
    added = change.added(name)
    if added is None:
        raise TypeError(f"A {type(change).__name__} takes the place of weights; it is no sum.")
    return added[0].double(), added[1].double()


def summed(pairs: Iterable[tuple[float, tuple[Tensor, Tensor]]], rank: int) -> tuple[Part, float, float]:
    """The sum of weighted products, as its own largest `rank` directions.

    pairs: weights, and (up, down) of each.

    Returns:
        The part, with entries of its left factor up to 1, so that float16 holds them well; the square of what
        it keeps, and of all there was.
    """
    weighted = [(weight * up, down) for weight, (up, down) in pairs]
    up, down = torch.cat([u for u, _ in weighted], 1), torch.cat([d for _, d in weighted])
    if len(down) >= min(len(up), down.shape[1]):
        left, sizes, right = torch.linalg.svd(up @ down, full_matrices=False)
    else:
        q_up, r_up = torch.linalg.qr(up)
        q_down, r_down = torch.linalg.qr(down.T)
        left, sizes, right = torch.linalg.svd(r_up @ r_down.T, full_matrices=False)
        left, right = q_up @ left, right @ q_down.T
    there = int((sizes > _LEFT_OUT * sizes[:1]).sum())
    kept = min(rank, there)
    left, right = left[:, :kept] * sizes[:kept], right[:kept]
    largest = float(left.abs().max()) if kept else 1.0
    part = Part((left / largest).float(), (right * largest).float())
    return part, float(sizes[:kept].square().sum()), float(sizes.square().sum())
