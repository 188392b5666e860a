"""Entries by the gradients of the first steps: which are chosen, and what moves before and after."""

import pytest
import torch

from cns_core.checkpoint import CheckpointError
from cns_core.methods import METHODS
from cns_core.methods.cns.change import CnsChange
from cns_core.methods.cns.masks import NeuronMask
from cns_core.methods.gradient_neurons import ByGradient, GradientAdaptation, GradientTraining
from cns_core.projections import ProjectionLayout

LAYOUT = ProjectionLayout(("k", "v"), ((3, 4), (2, 4)))
G = torch.Generator().manual_seed(0)
WEIGHTS = torch.randn(LAYOUT.total, generator=G)
GRADIENTS = torch.randn(3, LAYOUT.total, generator=G)


class Before:
    """What earlier concepts left, by flat position."""

    layout = LAYOUT

    def __init__(self, values=None):
        self._flat = torch.zeros(LAYOUT.total).half()
        for place, value in (values or {}).items():
            self._flat[place] = value

    def changes(self):
        return {n: self._flat[w].reshape(s).clone() for n, s, w in LAYOUT.slices()}

    def moved(self, name):
        return self.changes()[name] != 0


def flat(functions, weights=WEIGHTS):
    return torch.cat([functions[n](weights[w].reshape(s)).reshape(-1) for n, s, w in LAYOUT.slices()])


def adaptation(times_weight=True, count=5, earlier=None, **settings):
    prepared = ByGradient(LAYOUT, count, "why", times_weight)
    return GradientAdaptation(prepared, Before(earlier), GradientTraining(score_first=0.3, **settings))


def step(delta, number, gradient, batches=1):
    delta.before_step(number, 10, None)
    delta.values.grad = None
    for _ in range(batches):
        delta.before_forward()
        loss = (flat(delta.weight_functions()) * gradient).sum() / batches
        if loss.requires_grad:
            loss.backward()
    delta.rate_factors(number, 10)


def looked(delta, batches=1):
    """After the three steps of ten that are for looking."""
    for number, gradient in enumerate(GRADIENTS):
        assert delta.mask is None
        step(delta, number, gradient, batches)
    delta.before_step(3, 10, None)
    return delta


def best(scores, count=5):
    return sorted(sorted(range(LAYOUT.total), key=lambda i: -float(scores[i]))[:count])


@pytest.mark.parametrize("batches", [1, 3])
def test_the_largest_of_weight_times_gradient(batches):
    delta = looked(adaptation(), batches)
    expected = best((WEIGHTS * GRADIENTS.sum(dim=0)).abs())
    assert delta.mask.flat().nonzero()[0].tolist() == expected


def test_the_largest_gradients():
    expected = best(GRADIENTS.sum(dim=0).abs())
    assert expected != best((WEIGHTS * GRADIENTS.sum(dim=0)).abs())
    assert looked(adaptation(times_weight=False)).mask.flat().nonzero()[0].tolist() == expected


def test_the_weight_is_the_one_that_earlier_concepts_left():
    earlier = {0: 40.0, 7: -30.0}
    now = WEIGHTS.clone()
    for place, value in earlier.items():
        now[place] += value
    delta = looked(adaptation(earlier=earlier))
    assert delta.mask.flat().nonzero()[0].tolist() == best((now * GRADIENTS.sum(dim=0)).abs())
    assert torch.equal(flat(delta.weight_functions()), now)  # nothing has moved yet


def test_only_what_was_chosen_moves_then():
    delta = looked(adaptation())
    with torch.no_grad():
        delta.values += 1
    delta.before_forward()
    moved = flat(delta.weight_functions()) - WEIGHTS
    assert (moved != 0).nonzero().reshape(-1).tolist() == delta.mask.flat().nonzero()[0].tolist()
    change = delta.learned()
    assert isinstance(change, CnsChange) and change.values.tolist() == [1] * 5


def test_l_reg_counts_from_then_on():
    delta = adaptation(keep_base=2.0, keep_earlier=0.0)
    assert delta.penalties()["L_reg"].item() == 0
    looked(delta)
    with torch.no_grad():
        delta.values += 3
    assert delta.penalties()["L_reg"].item() == pytest.approx(2 * 5 * 9)


def test_a_step_that_was_stopped_leaves_nothing():
    delta = adaptation()
    step(delta, 0, GRADIENTS[0])
    before = delta.state_dict()
    delta.before_step(1, 10, None)
    (flat(delta.weight_functions()) * GRADIENTS[1]).sum().backward()  # and no more of that step
    after = delta.state_dict()
    assert all(torch.equal(after[n], before[n]) for n in before)
    delta.load_state_dict(before)
    for number in (1, 2):
        step(delta, number, GRADIENTS[number])
    delta.before_step(3, 10, None)
    assert delta.mask == looked(adaptation()).mask


def test_stopped_before_there_is_a_choice_nothing_is_left_of_the_weights():
    delta = adaptation()
    step(delta, 0, GRADIENTS[0])
    assert delta.learned().mask.count() == 0


def test_it_goes_back_to_looking_where_a_checkpoint_says_so():
    delta = adaptation()
    step(delta, 0, GRADIENTS[0])
    early = delta.state_dict()
    for number in (1, 2, 3):
        step(delta, number, GRADIENTS[number % 3])
    late = delta.state_dict()
    assert set(late) == {"mask", "values"}
    delta.load_state_dict(early)
    assert delta.mask is None and not delta.values.any()
    assert all(torch.equal(t, early[n]) for n, t in delta.state_dict().items())
    delta.load_state_dict({**late, "values": torch.arange(5.0)})
    assert delta.mask is not None and delta.values.tolist() == [0, 1, 2, 3, 4]


def test_checkpoints_of_other_runs():
    delta = adaptation()
    none = torch.from_numpy(NeuronMask.empty(LAYOUT).bits.copy())
    for state, said in (
        ({"values": torch.zeros(5)}, "is missing"),
        ({"mask": torch.zeros(9, dtype=torch.uint8), "values": torch.zeros(5)}, "another run"),
        ({"mask": none, "values": torch.zeros(5)}, "0 entries, expected 5"),
        ({"mask": none, "values": torch.zeros(4)}, "values is"),
    ):
        with pytest.raises(CheckpointError, match=said):
            delta.load_state_dict(state)


def test_too_few_gradients():
    delta = adaptation()
    gradient = torch.zeros(LAYOUT.total)
    gradient[:3] = 1
    step(delta, 0, gradient)
    with pytest.raises(ValueError, match="Only 3 entries had a gradient in the first steps, expected 5"):
        delta.before_step(3, 10, None)


def test_impossible_settings():
    method = METHODS["gradient neurons"]
    for kind, bad in (
        (method.Selection, {"gradient_score": "luck"}),
        (method.Selection, {"budget_percent": 0}),
        (method.Training, {"score_first": 1.0}),
    ):
        with pytest.raises(ValueError, match=next(iter(bad))):
            kind(**bad)
