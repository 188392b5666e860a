"""Muon and AdamW as one: steps in all directions of a matrix, in the parameters' own memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from small_base.training.matrix_optimizer import MatrixOptimizer


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(4, 64, 3), nn.Conv2d(64, 96, 3), nn.Flatten(), nn.Linear(96, 64))
    return layers.to(memory_format=torch.channels_last)


def step(layers: nn.Sequential, optimizer: MatrixOptimizer, seed: int) -> None:
    optimizer.zero_grad()
    pictures = torch.randn(512, 4, 5, 5, generator=torch.Generator().manual_seed(seed))
    layers(pictures).square().mean().backward()
    optimizer.step()


def test_a_matrix_moves_as_far_in_all_directions_and_the_rest_as_with_adam() -> None:
    layers = network()
    before = [parameter.detach().clone() for parameter in layers.parameters()]
    step(layers, MatrixOptimizer(list(layers.parameters()), rate=0.01), 0)
    moved = [after.detach() - old for after, old in zip(layers.parameters(), before, strict=True)]
    first, _, convolution, bias, _, _ = moved
    # Adam's first step is the learning rate in each entry; Muon's has 0.2 of that, as a root mean square.
    assert float(first.abs().median()) == pytest.approx(0.01, rel=0.01)
    assert float(bias.abs().median()) == pytest.approx(0.01, rel=0.01)
    lengths = torch.linalg.svdvals(convolution.flatten(1))
    assert float(lengths.max() / lengths.median()) < 2
    assert float(convolution.square().mean().sqrt()) == pytest.approx(0.2 * 0.01, rel=0.3)


def test_goes_on_from_its_state() -> None:
    layers = network()
    optimizer = MatrixOptimizer(list(layers.parameters()), rate=0.01)
    step(layers, optimizer, 0)
    again = copy.deepcopy(layers)
    other = MatrixOptimizer(list(again.parameters()), rate=0.01)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group in other.param_groups:  # those that the loaded optimizers step with
        assert group["lr"] == 0.01
    step(layers, optimizer, 1)
    step(again, other, 1)
    for left, right in zip(layers.parameters(), again.parameters(), strict=True):
        assert torch.equal(left, right)


def test_the_state_of_another_optimizer_is_refused() -> None:
    parameters = list(network().parameters())
    with pytest.raises(ValueError, match="train anew"):
        MatrixOptimizer(parameters, rate=0.01).load_state_dict(torch.optim.Adam(parameters).state_dict())


def test_the_memory_format_is_asked_for() -> None:
    with pytest.raises(ValueError, match="channels_last"):
        MatrixOptimizer(list(nn.Conv2d(64, 64, 3).parameters()), rate=0.01)
