"""One step of learning, its average, and that both go on from their state."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from small_base.training.learner import Average, Learner


def learner(rate: float, network: nn.Module | None = None) -> tuple[nn.Module, Learner]:
    torch.manual_seed(0)
    network = network or nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)
    return network, Learner({"line": network}, "line", optimizer, 0.9)


def test_a_step_is_one_long_at_most_and_as_fast_as_asked() -> None:
    line, mine = learner(0.5)
    with torch.no_grad():
        line.weight.zero_()
    norm = mine.update((line.weight * torch.tensor([3.0, 4.0])).sum(), 0, 0.1)
    assert norm == pytest.approx(5.0)
    assert line.weight[0].tolist() == pytest.approx([-0.05 * 0.6, -0.05 * 0.8], abs=1e-5)


def test_goes_on_from_its_state_but_at_its_own_rate() -> None:
    line, mine = learner(0.5)
    mine.update(line(torch.ones(1, 2)).sum(), 0, 1.0)
    other_line, other = learner(0.125)
    other.load({**mine.state(), "something else": 1})
    assert torch.equal(other_line.weight, line.weight)
    assert torch.equal(other.state()["average"]["weight"], mine.state()["average"]["weight"])
    before = line.weight.detach().clone()
    other.update((other_line.weight * torch.tensor([0.6, 0.8])).sum(), 1, 1.0)
    assert (before - other_line.weight)[0].tolist() == pytest.approx([0.125 * 0.6, 0.125 * 0.8], abs=1e-6)


def test_average_follows_and_lends_its_values() -> None:
    linear = nn.Linear(3, 2)
    with torch.no_grad():
        linear.weight.fill_(0.0)
        average = Average(linear, decay=0.9)
        linear.weight.fill_(1.0)
        average.update(0)
        assert average.state_dict()["weight"][0, 0] == pytest.approx(0.9), "early on it follows quickly"
        for index in range(1000, 1010):
            average.update(index)
    expected = 1 - 0.1 * 0.9**10
    assert average.state_dict()["weight"][0, 0] == pytest.approx(expected, abs=1e-6)
    assert list(average.state_dict()) == ["weight", "bias"]
    with pytest.raises(RuntimeError, match="inside"), average.applied():
        assert linear.weight[0, 0].item() == pytest.approx(expected, abs=1e-6)
        raise RuntimeError("inside")
    assert bool((linear.weight == 1.0).all()), "put back even after an error"

    other = Average(nn.Linear(3, 2), decay=0.9)
    other.load_state_dict(average.state_dict())
    assert all(torch.equal(left, right) for left, right in zip(other.values, average.values, strict=True))
