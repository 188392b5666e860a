"""The pictures have the promised shapes, show something, and cut nothing off."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cns_core.evaluation.plots import loss_curve, share_bars

LONG = "a-concept-with-a-name-that-goes-on-" * 4


def margins_are_white(picture: Tensor, pixels: int = 4) -> bool:
    page = picture[0]
    edges = (page[:pixels], page[-pixels:], page[:, :pixels], page[:, -pixels:])
    return all(bool((edge == 1.0).all()) for edge in edges)


def reddish(picture: Tensor) -> int:
    """Pixels of the second line colour, orange."""
    red, green, blue = picture[0].unbind(-1)
    return int(((red > 0.7) & (green < 0.6) & (blue < 0.3)).sum())


def test_loss_curve_draws_raw_and_smoothed_lines() -> None:
    values = [math.sin(step / 3) ** 2 + 0.1 for step in range(200)]
    picture = loss_curve({"diffusion": values, LONG: values[::-1]}, f"Loss of {LONG * 3}")
    assert picture.shape == (1, 540, 960, 3) and picture.dtype == torch.float32
    assert 0.0 <= float(picture.min()) < float(picture.max()) == 1.0
    assert margins_are_white(picture)
    assert reddish(picture) > reddish(loss_curve({"diffusion": values})) + 500


@pytest.mark.parametrize(
    "values", [[0.3], [0.0, 0.0], [2.0, 2.0, 2.0], [-1.0, -1.5], [1e-9, 2e-9], [5e6, 1.0]]
)
def test_loss_curve_of_few_or_equal_values(values: list[float]) -> None:
    picture = loss_curve({"total": values})
    assert margins_are_white(picture)
    blue = (picture[0, 84:490, :, 2] > 0.6) & (picture[0, 84:490, :, 0] < 0.3)
    assert int(blue.sum()) > 10


def test_loss_curve_leaves_out_what_is_not_finite() -> None:
    picture = loss_curve({"total": [0.5, math.nan, 0.4, math.inf, 0.3], "prior": [math.nan] * 5})
    assert margins_are_white(picture)
    with pytest.raises(ValueError, match="No finite loss"):
        loss_curve({"total": [math.nan]})
    with pytest.raises(ValueError, match="No finite loss"):
        loss_curve({})


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_an_impossible_smoothing_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        loss_curve({"total": [1.0]}, smoothing=smoothing)


def test_share_bars_grows_with_bars_and_concepts() -> None:
    shares = [(f"output_blocks.{block}.1.transformer_blocks.0.attn2.to_k", block / 40) for block in range(32)]
    alone = share_bars(shares)
    earlier = share_bars(shares, [("my-fox", 0.25), (LONG, 1.0), ("none", 0.0)], f"Neurons of {LONG}")
    assert alone.shape[2] == earlier.shape[2] == 760
    assert alone.shape[1] < earlier.shape[1]
    assert margins_are_white(alone) and margins_are_white(earlier)
    many = share_bars(shares * 5)
    assert many.shape[2] == 5 * 560 and many.shape[1] <= alone.shape[1] + 100


def test_a_greater_share_has_a_longer_bar() -> None:
    picture = share_bars([("small", 0.1), ("large", 0.9)])[0]
    small, large = picture[101, 314:688], picture[119, 314:688]  # the middles of the two bars
    saturated = [int((row.max(dim=-1).values - row.min(dim=-1).values > 0.2).sum()) for row in (small, large)]
    assert saturated[0] * 8 < saturated[1] < saturated[0] * 10


@pytest.mark.parametrize("shares", [[], [("to_k", 1.5)], [("to_k", math.nan)]])
def test_shares_outside_zero_and_one_are_refused(shares: list[tuple[str, float]]) -> None:
    with pytest.raises(ValueError, match=r"at least one share, in \[0, 1\]"):
        share_bars(shares)
