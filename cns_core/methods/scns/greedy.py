"""Entries chosen one by one, each for what it covers that those before it do not.

In a row i of a projection, entry j stands for entry j' as far as their score profiles agree,

    sim(j', j) = |W[i,j']| |W[i,j]| max(0, <p_j', p_j>)

(facility location). Of what is chosen, S, an entry is worth

    (sum_j' [sim(j', j) - max_{s in S} sim(j', s)]_+ / unit - risk R[i,j]) / cost[i,j]

with unit the mean over all entries of what each covers alone. In a row this never rises from one choice to
the next, so all rows may go on by themselves down to one limit, and together have chosen what is best of
all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...projections import ProjectionLayout
from ..cns.masks import NeuronMask

_SAMPLED_ROWS = 8  # of each projection, when a limit is sought for a budget
_ROWS_AT_ONCE = {"cpu": 32}  # few enough to stay in a core's cache
_ROWS_ELSEWHERE = 1024


@dataclass(frozen=True, eq=False)
class Terms:
    """What decides.

    magnitudes: |W| by projection, `(out, text_dim)`.
    profiles: p_j, `(text_dim, captions)`.
    risks: R by projection; costs: what a choice takes of the budget; both as the magnitudes.
    risk: its weight; near: an entry stands for so many others at most, those most like it.
    """

    magnitudes: Mapping[str, Tensor]
    profiles: Tensor
    risks: Mapping[str, Tensor]
    costs: Mapping[str, Tensor]
    risk: float
    near: int


def choose(layout: ProjectionLayout, terms: Terms, budget: float, device: torch.device) -> NeuronMask:
    """The entries that are worth most, as many as cost `budget`, judged on a sample of rows; fewer where no
    more are worth anything.
    """
    cover = _Cover(terms, device)
    limit = _limit(layout, cover, budget)
    chosen = {}
    for name, _, _ in layout.slices():
        rows = [cover.chosen(name, which, limit)[0] for which in _pieces(layout.shape(name)[0], device)]
        chosen[name] = torch.cat(rows)
    return NeuronMask.from_dense(layout, chosen)


def _limit(layout: ProjectionLayout, cover: _Cover, budget: float) -> float:
    """The worth above which choices cost the budget."""
    worths, costs = [], []
    for name, (out, _), _ in layout.slices():
        sampled = slice(None, None, max(1, out // _SAMPLED_ROWS))
        chosen, worth, cost = cover.chosen(name, sampled, 0.0)
        worths.append(worth[chosen])
        costs.append(cost[chosen] * out / len(chosen))
    worth, order = torch.cat(worths).sort(descending=True)
    spent = torch.cat(costs)[order].cumsum(0)
    within = int((spent <= budget).sum())
    return float(worth[within]) if within < len(worth) else 0.0


class _Cover:
    """How well entries stand for others, and what they are worth."""

    def __init__(self, terms: Terms, device: torch.device) -> None:
        self._terms, self._device = terms, device
        alike = (terms.profiles @ terms.profiles.T).clamp(min=0).to(device)
        nearest = alike.topk(min(terms.near, len(alike)), dim=1)
        self._near, self._alike = nearest.indices, nearest.values  # (text_dim, near)
        alone = [self._similar(name, which).sum() for name, which in self._all_rows()]
        entries = sum(magnitude.numel() for magnitude in terms.magnitudes.values())
        self._unit = torch.stack(alone).sum() / entries

    def _all_rows(self) -> Iterator[tuple[str, slice]]:
        for name, magnitude in self._terms.magnitudes.items():
            for which in _pieces(len(magnitude), self._device):
                yield name, which

    def _similar(self, name: str, which: slice) -> Tensor:
        """sim(j', j) of each entry j to those near it, `(rows, text_dim, near)`."""
        magnitude = self._terms.magnitudes[name][which].to(self._device)
        return magnitude[:, :, None] * magnitude[:, self._near] * self._alike

    def chosen(self, name: str, which: slice, limit: float) -> tuple[Tensor, Tensor, Tensor]:
        """What is chosen in some rows: bool `(rows, text_dim)` on the CPU, what each choice was worth then,
        and what it cost.
        """
        similar = self._similar(name, which)
        risk = self._terms.risk * self._terms.risks[name][which].to(self._device)
        cost = self._terms.costs[name][which].to(self._device)
        covered = torch.zeros_like(cost)  # max over what is chosen of sim(j', s)
        worths = torch.zeros_like(cost)
        found = torch.zeros_like(cost, dtype=torch.bool)
        rows = torch.arange(len(cost), device=self._device)
        while len(rows):
            gain = (similar[rows] - covered[rows][:, self._near]).clamp(min=0).sum(dim=2) / self._unit
            worth = ((gain - risk[rows]) / cost[rows]).masked_fill(found[rows], float("-inf"))
            best, entry = worth.max(dim=1)
            rows, entry, best = (t[best > limit] for t in (rows, entry, best))
            found[rows, entry], worths[rows, entry] = True, best
            after = covered[rows].scatter_reduce(1, self._near[entry], similar[rows, entry], "amax")
            covered[rows] = after
        return found.cpu(), worths.cpu(), cost.cpu()


def _pieces(rows: int, device: torch.device) -> Iterator[slice]:
    at_once = _ROWS_AT_ONCE.get(device.type, _ROWS_ELSEWHERE)
    for first in range(0, rows, at_once):
        yield slice(first, first + at_once)
