"""Concept neurons, Eq. 4-6: AND over the concept's captions, minus what every calibration prompt selects.

    M_base = AND_i m_i      M_gen = AND_p m_p      M_con = M_base AND NOT M_gen

where `m` holds the top k percent of each output row of the score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from .importance import Score, wanda_score
from .masks import NeuronMask
from .projections import ProjectionLayout, flat_weights
from .settings import SelectionSettings

# Rows looked at per projection when a percent is sought for a budget; the rest behave alike.
_SAMPLED_ROWS = 32
_ROWS_AT_ONCE = 320  # of a projection; few enough to stay in a core's cache

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Selection:
    """What selection found: the concept mask, the two it was made from, and the percent per row that was
    used.
    """

    concept_mask: NeuronMask
    base_mask: NeuronMask
    general_mask: NeuronMask
    top_percent: float


def entries_to_keep(width: int, percent: float) -> int:
    """How many of a row's `width` entries the top `percent` % are, at least one."""
    return max(1, min(width, round(width * percent / 100)))


def top_per_row(score: Tensor, percent: float) -> Tensor:
    """Boolean `(out, in)`: the `percent` % largest of each row; entries tied with the last one are in."""
    keep = entries_to_keep(score.shape[1], percent)
    if score.device.type != "cpu":
        return score >= torch.topk(score, keep, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    # NumPy's vectorised selection takes a ninth of the time that torch.topk takes on a CPU; its comparison
    # starts no threads, which would get into the way of those that look at the other projections.
    values, place = score.detach().float().numpy(), score.shape[1] - keep
    return torch.from_numpy(values >= np.partition(values, place, axis=1)[:, place : place + 1])


def common_top(
    weight: Tensor, features: Iterable[Tensor], percent: float, score: Score = wanda_score
) -> Tensor:
    """AND over captions of the entries in the top `percent` % of each row (Eq. 4 and 5); boolean `(out,
    in)`.
    """
    common: Tensor | None = None
    for x in features:
        mask = top_per_row(score(weight, x), percent)
        common = mask if common is None else common.logical_and_(mask)
    if common is None:
        raise ValueError("Selection needs at least one caption.")
    return common


@torch.no_grad()
def select_neurons(
    weights: Mapping[str, Tensor],
    layout: ProjectionLayout,
    concept_features: Sequence[Tensor],
    calibration_features: Sequence[Tensor],
    settings: SelectionSettings,
    score: Score = wanda_score,
) -> Selection:
    """Find the concept neurons.

    weights: `name -> (out, text_dim)`; features: one `(tokens, text_dim)` per caption, the rows that count
    (see `importance.counted_features`). Raises ValueError when nothing is left.
    """
    percent = settings.top_percent
    if settings.select_by == "budget":
        percent = find_percent(
            weights, layout, concept_features, calibration_features, settings.budget_percent, score
        )

    @torch.no_grad()  # which is each thread's own
    def common(rows: Tensor) -> tuple[Tensor, Tensor]:
        return (
            common_top(rows, concept_features, percent, score),
            common_top(rows, calibration_features, percent, score),
        )

    pieces = [
        (name, rows)
        for name, weight in flat_weights(weights, layout)
        for rows in weight.float().split(_ROWS_AT_ONCE)
    ]
    found = _on_all_cores(common, [rows for _, rows in pieces])
    base, general = (
        {
            name: torch.cat([masks[which] for (n, _), masks in zip(pieces, found, strict=True) if n == name])
            for name in layout.names
        }
        for which in (0, 1)
    )
    base_mask, general_mask = NeuronMask.from_dense(layout, base), NeuronMask.from_dense(layout, general)
    selection = Selection(base_mask - general_mask, base_mask, general_mask, percent)
    if not selection.concept_mask.count():
        raise ValueError(
            f"These settings leave no neurons: the top {percent:.3g} % per row gives {base_mask.count():,} "
            "base neurons, and "
            "every calibration prompt selects all of them too. Use another percent, a budget, or other "
            "captions."
        )
    return selection


def find_percent(
    weights: Mapping[str, Tensor],
    layout: ProjectionLayout,
    concept_features: Sequence[Tensor],
    calibration_features: Sequence[Tensor],
    budget_percent: float,
    score: Score = wanda_score,
) -> float:
    """The smallest top percent per row whose concept mask holds `budget_percent` % of K/V, judged on a
    sample of rows.

    An entry is in M_con at `keep` exactly when `base_rank < keep <= general_rank`, its worst rank within the
    row over the concept's captions and over the calibration prompts; so one pass gives the share for every
    percent. The share rises from 0 to a peak and returns to 0 at 100 %. Raises ValueError with the peak when
    the budget lies above it.
    """
    width = layout.shapes[0][1]
    change = torch.zeros(width + 2, dtype=torch.float64)  # change of the count from keep-1 to keep
    sampled = [
        (weight.shape[0], weight[:: max(1, weight.shape[0] // _SAMPLED_ROWS)].float())
        for _, weight in flat_weights(weights, layout)
    ]

    @torch.no_grad()
    def worst_ranks(rows: Tensor) -> tuple[Tensor, Tensor]:
        return _worst_rank(rows, concept_features, score), _worst_rank(rows, calibration_features, score)

    ranks = _on_all_cores(worst_ranks, [rows for _, rows in sampled])
    for (height, rows), (base, general) in zip(sampled, ranks, strict=True):
        chosen = base < general
        scale = height / rows.shape[0]
        change += scale * torch.bincount(base[chosen] + 1, minlength=width + 2).cpu()
        change -= scale * torch.bincount(general[chosen] + 1, minlength=width + 2).cpu()
    share = 100 * change.cumsum(0)[: width + 1] / layout.total  # share[keep], percent of K/V
    reached = (share >= budget_percent).nonzero()
    if not len(reached):
        peak = int(share.argmax())
        raise ValueError(
            f"A budget of {budget_percent:g} % of K/V cannot be reached: with {len(concept_features)} "
            "captions and "
            f"{len(calibration_features)} calibration prompts at most about {share[peak]:.2f} % are concept "
            "neurons (at the top "
            f"{100 * peak / width:.3g} % per row). Lower the budget, or use fewer and more similar captions."
        )
    keep = int(reached[0])
    if keep > 1 and budget_percent - share[keep - 1] < share[keep] - budget_percent:
        keep -= 1
    return 100 * keep / width


def _worst_rank(rows: Tensor, features: Sequence[Tensor], score: Score) -> Tensor:
    """For each entry the worst (largest) rank, 0 = most important in its row, over the captions; int64
    `(rows, in)`.
    """
    places = torch.arange(rows.shape[1], device=rows.device).expand_as(rows)
    worst = torch.zeros_like(rows, dtype=torch.int64)
    for x in features:
        order = _descending(score(rows, x))
        worst = torch.maximum(worst, torch.empty_like(order).scatter_(1, order, places))
    return worst


def _descending(score: Tensor) -> Tensor:
    """Positions within each row from its largest to its smallest entry."""
    if score.device.type != "cpu":
        return torch.argsort(score, dim=1, descending=True, stable=True)
    return torch.from_numpy(np.argsort(-score.detach().float().numpy(), axis=1))  # vectorised, as above


def _on_all_cores(look: Callable[[Tensor], _Found], pieces: Sequence[Tensor]) -> list[_Found]:
    """`look` at each piece, in order. NumPy sorts and selects on one core; a GPU is busy with one piece."""
    cores = torch.get_num_threads()
    if pieces[0].device.type != "cpu" or cores == 1:
        return [look(piece) for piece in pieces]
    torch.set_num_threads(1)  # in each of the threads below, or they would wait for each other
    try:
        with ThreadPoolExecutor(cores) as pool:
            return list(pool.map(look, pieces))
    finally:
        torch.set_num_threads(cores)
