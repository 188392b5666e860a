"""Concept neurons, Eq. 4-6: AND over the concept's captions, minus what every calibration prompt selects.

    M_base = AND_i m_i      M_gen = AND_p m_p      M_con = M_base AND NOT M_gen

where `m` holds the top k percent of each output row of the score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .importance import Score, wanda_score
from .masks import NeuronMask
from .projections import ProjectionLayout, flat_weights
from .settings import SelectionSettings

# Rows looked at per projection when a percent is sought for a budget; the rest behave alike.
_SAMPLED_ROWS = 32


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
    return score >= _kth_largest(score, keep)


def _kth_largest(score: Tensor, k: int) -> Tensor:
    """Of each row, `(out, 1)`; k counts from 1."""
    if score.device.type != "cpu":
        return torch.topk(score, k, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    place = score.shape[1] - k
    # NumPy's vectorised selection takes a ninth of the time that torch.topk takes on a CPU.
    return torch.from_numpy(np.partition(score.detach().float().numpy(), place, axis=1)[:, place : place + 1])


def common_top(
    weight: Tensor, features: Iterable[Tensor], percent: float, score: Score = wanda_score
) -> Tensor:
    """AND over captions of the entries in the top `percent` % of each row (Eq. 4 and 5); boolean `(out,
    in)`.
    """
    common: Tensor | None = None
    for x in features:
        mask = top_per_row(score(weight, x), percent)
        common = mask if common is None else common & mask
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

    def common(named: tuple[str, Tensor]) -> tuple[str, Tensor, Tensor]:
        name, weight = named[0], named[1].float()
        with torch.no_grad():  # which is each thread's own
            mine = common_top(weight, concept_features, percent, score)
            return name, mine, common_top(weight, calibration_features, percent, score)

    base: dict[str, Tensor] = {}
    general: dict[str, Tensor] = {}
    # NumPy's selection uses one core; on a GPU nothing would be won.
    cores = torch.get_num_threads() if next(iter(weights.values())).device.type == "cpu" else 1
    with ThreadPoolExecutor(cores) as pool:
        for name, mine, theirs in pool.map(common, flat_weights(weights, layout)):
            base[name], general[name] = mine, theirs
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
    for _, weight in flat_weights(weights, layout):
        rows = weight[:: max(1, weight.shape[0] // _SAMPLED_ROWS)].float()
        base = _worst_rank(rows, concept_features, score)
        general = _worst_rank(rows, calibration_features, score)
        chosen = base < general
        scale = weight.shape[0] / rows.shape[0]
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
        order = torch.sort(score(rows, x), dim=1, descending=True, stable=True).indices
        worst = torch.maximum(worst, torch.empty_like(order).scatter_(1, order, places))
    return worst
