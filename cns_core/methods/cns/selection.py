"""Concept neurons, Eq. 4-6: AND over the concept's captions, minus what every calibration prompt selects.

    M_base = AND_i m_i      M_gen = AND_p m_p      M_con = M_base AND NOT M_gen

where `m` holds the top k percent of each output row of the score. M_gen may be counted instead: entries that
a share of the prompts selects.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...projections import ProjectionLayout, flat_weights
from .masks import NeuronMask
from .scores import SCORES, Array, Contrast, Evidence, Rows, Score
from .settings import BUDGET, CnsSelection

# Rows looked at in each projection when a percent is sought for a budget; the rest behave alike.
_SAMPLED_ROWS = 32
# Of a projection, ranked at once; few enough to stay in a core's cache.
_ROWS_AT_ONCE = 320
_LEAST = float(np.finfo(np.float32).min)  # of scores; what lies below is never chosen


@dataclass(frozen=True)
class Selection:
    """What selection found: the concept mask, the two it was made from,
    and the percent per row that was used.
    """

    concept_mask: NeuronMask
    base_mask: NeuronMask
    general_mask: NeuronMask
    top_percent: float


def select_neurons(
    weights: Mapping[str, Tensor],
    layout: ProjectionLayout,
    concept: Sequence[Evidence | Contrast],
    general: Sequence[Evidence],
    settings: CnsSelection,
) -> Selection:
    """Find the concept neurons.

    Args:
        weights: `name -> (out, text_dim)`.
        concept: one piece of evidence for each caption of the concept, or one for all of them.
        general: one for each calibration prompt.

    Raises:
        ValueError: nothing is left.
    """
    score, percent = SCORES[settings.score], settings.top_percent
    cores = torch.get_num_threads()
    with torch.no_grad(), ThreadPoolExecutor(cores) as pool:
        rank = Ranking(score, pool, cores)
        if settings.select_by == BUDGET:
            percent = find_percent(rank, list(flat_weights(weights, layout)), concept, general, settings)
        base: dict[str, list[Tensor]] = {name: [] for name in layout.names}
        common: dict[str, list[Tensor]] = {name: [] for name in layout.names}
        for name, weight in flat_weights(weights, layout):
            for rows in _pieces(name, weight):
                base[name].append(rank.common_top(rows, concept, percent))
                common[name].append(rank.common_top(rows, general, percent, settings.general_share))
    base_mask, general_mask = (
        NeuronMask.from_dense(layout, {name: torch.cat(rows) for name, rows in masks.items()})
        for masks in (base, common)
    )
    selection = Selection(base_mask - general_mask, base_mask, general_mask, percent)
    if not selection.concept_mask.count():
        raise ValueError(
            f"These settings leave no neurons: the top {percent:.3g} % per row gives {base_mask.count():,} "
            "base neurons, and every calibration prompt selects all of them too. "
            "Use another percent, a budget, or other captions."
        )
    return selection


def find_percent(
    rank: Ranking,
    weights: Sequence[tuple[str, Tensor]],
    concept: Sequence[Evidence | Contrast],
    general: Sequence[Evidence],
    settings: CnsSelection,
) -> float:
    """The smallest top percent per row whose concept mask holds `budget_percent` % of K/V,
    judged on a sample of rows.

    An entry is in M_con at `keep` exactly when `base_rank < keep <= general_rank`, its worst rank within the
    row over the concept's captions and over the calibration prompts (over the best of these, as many as make
    it general); so one pass gives the share for every percent. The share rises from 0 to a peak and returns
    to 0 at 100 %. Raises ValueError with the peak when the budget lies above it.
    """
    budget, width = settings.budget_percent, weights[0][1].shape[1]
    total = sum(weight.numel() for _, weight in weights)
    change = torch.zeros(width + 2, dtype=torch.float64)  # change of the count from keep-1 to keep
    for name, weight in weights:
        rows = _rows(name, weight, slice(None, None, max(1, weight.shape[0] // _SAMPLED_ROWS)))
        base = rank.worst_ranks(rows, concept)
        common = rank.worst_ranks(rows, general, settings.general_share)
        chosen = base < common
        scale = weight.shape[0] / rows.weight.shape[0]
        change += scale * torch.bincount(base[chosen] + 1, minlength=width + 2).cpu()
        change -= scale * torch.bincount(common[chosen] + 1, minlength=width + 2).cpu()
    share = 100 * change.cumsum(0)[: width + 1] / total  # share[keep], percent of K/V
    reached = (share >= budget).nonzero()
    if not len(reached):
        peak = int(share.argmax())
        raise ValueError(
            f"A budget of {budget:g} % of K/V cannot be reached: with {len(concept)} captions and "
            f"{len(general)} calibration prompts at most about {share[peak]:.2f} % are concept neurons "
            f"(at the top {100 * peak / width:.3g} % per row). "
            "Lower the budget, or use fewer and more similar captions."
        )
    keep = int(reached[0])
    if keep > 1 and budget - share[keep - 1] < share[keep] - budget:
        keep -= 1
    return 100 * keep / width


class Ranking:
    """Entries of some rows in the order of their importance, over several captions.

    On a CPU it is NumPy that sorts, in a ninth of the time that PyTorch takes on one core, and the pool gives
    it all of them; nothing in the pool calls PyTorch, whose threads would get in the way.
    """

    def __init__(self, score: Score, pool: ThreadPoolExecutor, cores: int) -> None:
        self._score, self._pool, self._cores = score, pool, cores

    def common_top(
        self, rows: Rows, captions: Sequence[Evidence | Contrast], percent: float, share: float = 1.0
    ) -> Tensor:
        """Eq. 4 and 5: AND over captions of the entries in the top `percent` % of each row, or of those that
        are there for a share of the captions; boolean `(rows, text_dim)`.
        """
        if share == 1:
            return self._over(rows, captions, lambda score: top_per_row(score, percent), operator.and_)
        times = self._over(rows, captions, lambda score: 1 * top_per_row(score, percent), operator.add)
        return times >= _how_many(share, captions)

    def worst_ranks(self, rows: Rows, captions: Sequence[Evidence | Contrast], share: float = 1.0) -> Tensor:
        """For each entry the worst (largest) rank, 0 = most important in its row, over the captions, or over
        the share of them in which it is best; int64 `(rows, text_dim)`.
        """
        on_cpu = rows.weight.device.type == "cpu"
        if share == 1:
            return self._over(rows, captions, ranks, np.maximum if on_cpu else torch.maximum)
        joined = np.concatenate if on_cpu else torch.cat
        each = self._over(rows, captions, lambda score: ranks(score)[None], lambda a, b: joined([a, b]))
        return each.kthvalue(_how_many(share, captions), dim=0).values

    def _over(
        self,
        rows: Rows,
        captions: Sequence[Evidence | Contrast],
        sort: Callable[[Array], Array],
        join: Callable[[Array, Array], Array],
    ) -> Tensor:
        """The captions' scores, each sorted, all joined."""
        if not captions:
            raise ValueError("Selection needs at least one caption.")

        def of(some: Sequence[Evidence | Contrast]) -> Array:
            return reduce(join, (sort(self._score(rows, caption)) for caption in some))

        if rows.weight.device.type != "cpu":
            found: Tensor = of(captions)
            return found
        _ = rows.magnitude  # by PyTorch, so not in the pool
        shares = filter(None, (captions[core :: self._cores] for core in range(self._cores)))
        return torch.from_numpy(reduce(join, self._pool.map(of, shares)))


def entries_to_keep(width: int, percent: float) -> int:
    """How many of a row's `width` entries the top `percent` % are, at least one."""
    return max(1, min(width, round(width * percent / 100)))


def top_per_row(score: Array, percent: float) -> Array:
    """The `percent` % largest entries of each row, boolean `(rows, text_dim)`; ties with the last are in,
    minus infinity is not.
    """
    keep = entries_to_keep(score.shape[1], percent)
    if isinstance(score, Tensor):
        last = torch.topk(score, keep, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
        return score >= last.clamp(min=_LEAST)
    place = score.shape[1] - keep
    return score >= np.partition(score, place, axis=1)[:, place : place + 1].clip(min=_LEAST)


def ranks(score: Array) -> Array:
    """The rank of each entry within its row, 0 = largest, int64 `(rows, text_dim)`; that of minus infinity is
    text_dim.
    """
    found: Array
    if isinstance(score, Tensor):
        order = torch.argsort(score, dim=1, descending=True, stable=True)
        places = torch.arange(order.shape[1], device=order.device).expand_as(order)
        found = torch.empty_like(order).scatter_(1, order, places)
    else:
        sorted_ = np.argsort(-score, axis=1)
        found = np.empty_like(sorted_)
        np.put_along_axis(found, sorted_, np.arange(sorted_.shape[1])[None], axis=1)
    found[score < _LEAST] = score.shape[1]
    return found


def _how_many(share: float, captions: Sequence[Any]) -> int:
    """The least number of captions that is such a share of them."""
    return max(1, math.ceil(round(share * len(captions), 9)))  # .7 of 10 are 7


def _pieces(name: str, weight: Tensor) -> Iterator[Rows]:
    for first in range(0, weight.shape[0], _ROWS_AT_ONCE):
        yield _rows(name, weight, slice(first, first + _ROWS_AT_ONCE))


def _rows(name: str, weight: Tensor, which: slice) -> Rows:
    return Rows(name, which, weight[which].float())
