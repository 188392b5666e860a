"""A run's weights at three stages, whatever the method makes of them."""

import pytest
import torch

from cns_core.method import Factored
from cns_core.staged import Stage, StagedWeights

WEIGHT, CHANGE = torch.ones(3, 4), torch.full((3, 4), 0.5).half()


class Product:
    """W + earlier + up down."""

    def __init__(self, rest):
        self.rest = rest

    def __call__(self, weight):
        return (weight if self.rest is None else self.rest(weight)) + 8

    def products(self):
        return [(torch.full((3, 1), value), torch.full((1, 4), 2.0)) for value in (1.0, 3.0)]


def at(weights, stage, name="k"):
    with weights.shown(stage):
        return weights.functions()[name](WEIGHT)[0, 0].item()


def test_each_stage_of_a_plain_function():
    weights = StagedWeights({"k": lambda w: w + 2}, {"k": CHANGE, "elsewhere": CHANGE})
    assert [at(weights, stage) for stage in Stage] == [3, 1.5, 1]
    # What the method knows nothing of is there before it, and is for the method to keep now.
    assert [at(weights, stage, "elsewhere") for stage in Stage] == [1, 1.5, 1]


@pytest.mark.parametrize("before", [{}, {"k": CHANGE}])
@pytest.mark.parametrize("rest", [None, lambda w: w + 2])
def test_each_stage_of_a_function_that_may_be_taken_apart(rest, before):
    weights = StagedWeights({"k": Product(rest)}, before)
    function = weights.functions()["k"]
    assert isinstance(function, Factored)
    for stage in Stage:
        with weights.shown(stage):
            parted = WEIGHT if function.rest is None else function.rest(WEIGHT)
            for up, down in function.products():
                parted = parted + up @ down
        assert parted[0, 0].item() == at(weights, stage)
    moved = 2.0 if rest else 0.0
    expected = {Stage.NOW: 9 + moved, Stage.BEFORE: 1 + (0.5 if before else 0.0), Stage.UNTOUCHED: 1}
    assert {stage: at(weights, stage) for stage in Stage} == expected


def test_a_stage_ends_with_an_error_inside_it_too():
    weights = StagedWeights({"k": lambda w: w + 2}, {})
    with pytest.raises(KeyError), weights.shown(Stage.UNTOUCHED):
        raise KeyError
    assert weights.stage is Stage.NOW
    with weights.shown(Stage.BEFORE):
        with weights.shown(Stage.UNTOUCHED):
            pass
        assert weights.stage is Stage.BEFORE


def test_a_weight_keeps_its_type_and_shape():
    weights = StagedWeights({}, {"conv": torch.full((2, 6), 0.5).half()})
    with weights.shown(Stage.BEFORE):
        seen = weights.functions()["conv"](torch.ones(2, 3, 2, 1, dtype=torch.bfloat16))
    assert seen.dtype == torch.bfloat16 and seen.shape == (2, 3, 2, 1) and float(seen[0, 0, 0, 0]) == 1.5
