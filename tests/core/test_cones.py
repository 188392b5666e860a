"""Cones: which entries are shut off, and what is laid of them."""

import pytest
import torch

from cns_core.checkpoint import CheckpointError
from cns_core.methods import METHODS
from cns_core.methods.cns.masks import NeuronMask
from cns_core.methods.cones import ConesAdaptation, ConesChange, ConesTraining, ToShutOff
from cns_core.projections import ProjectionLayout

LAYOUT = ProjectionLayout(("k", "v"), ((3, 4), (2, 4)))
G = torch.Generator().manual_seed(1)
WEIGHTS = torch.randn(LAYOUT.total, generator=G).half().float()  # of a model in float16
TARGETS = torch.randn(3, LAYOUT.total, generator=G)


def split(flat):
    return {n: flat[w].reshape(s) for n, s, w in LAYOUT.slices()}


class Before:
    layout = LAYOUT

    def __init__(self, change=None):
        self._change = change

    def changes(self):
        on = {n: torch.zeros(s).half() for n, s, _ in LAYOUT.slices()}
        return on if self._change is None else {n: self._change.lay(n, t) for n, t in on.items()}


def adaptation(count=4, earlier=None, **settings):
    prepared = ToShutOff(LAYOUT, count, "why", split(WEIGHTS))
    return ConesAdaptation(prepared, Before(earlier), ConesTraining(find_first=0.3, **settings))


def seen(delta, weights=WEIGHTS):
    functions = delta.weight_functions()
    return torch.cat([functions[n](w).reshape(-1) for n, w in split(weights).items()])


def step(delta, number, target):
    """One whose loss is the squared distance of the weights from a target."""
    delta.before_step(number, 10, None)
    loss = (seen(delta) - target).square().sum()
    if loss.requires_grad:
        loss.backward()
    delta.rate_factors(number, 10)


def by_hand(rho, start=WEIGHTS):
    """The sums after three steps, and the weights then."""
    weights, sums = start.double(), torch.zeros(LAYOUT.total).double()
    for target in TARGETS:
        moving = weights * 2 * (weights - target)
        sums = sums + moving
        weights = weights - rho * weights * moving
    return sums, weights


def best(sums, count):
    return sorted(sorted(range(LAYOUT.total), key=lambda i: -float(sums[i]))[:count])


def looked(delta):
    for number, target in enumerate(TARGETS):
        step(delta, number, target)
    return delta


@pytest.mark.parametrize("rho", [0.0, 0.05])
def test_entries_whose_shrinking_lowers_the_loss_are_found_while_the_weights_move_along(rho):
    sums, weights = by_hand(rho)
    delta = looked(adaptation(weight_lr=rho))
    torch.testing.assert_close(seen(delta).detach().double(), weights, atol=1e-5, rtol=1e-5)
    found = torch.cat([total.reshape(-1) for total in delta.looking.sums.values()])
    torch.testing.assert_close(found.double(), sums, atol=1e-4, rtol=1e-4)
    delta.before_step(3, 10, None)
    assert delta.mask.flat().nonzero()[0].tolist() == best(sums, 4)


def test_how_far_the_weights_move_along_can_change_what_is_found():
    assert best(by_hand(0.0)[0], 4) != best(by_hand(0.3)[0], 4)


def test_chosen_entries_are_zero_and_all_others_as_they_were():
    delta = looked(adaptation(weight_lr=0.05))
    delta.before_step(3, 10, None)
    off = torch.from_numpy(delta.mask.flat().copy())
    assert torch.equal(seen(delta), WEIGHTS.masked_fill(off, 0))


def test_what_is_laid_is_zero_of_a_model_in_float16():
    delta = looked(adaptation())
    delta.before_step(3, 10, None)
    change = delta.learned()
    assert change.summary() == "4 entries shut off"
    laid = {n: w + change.lay(n, torch.zeros_like(w).half()).float() for n, w in split(WEIGHTS).items()}
    assert torch.equal(torch.cat([w.reshape(-1) for w in laid.values()]), seen(delta))
    again = ConesChange.read(LAYOUT, change.tensors())
    assert again.mask == change.mask and torch.equal(again.values, change.values)


def test_masks_are_united_by_laying_them_on_each_other():
    first = looked(adaptation())
    first.before_step(3, 10, None)
    second = adaptation(count=6, earlier=first.learned())
    off = torch.from_numpy(first.mask.flat().copy())
    for number in range(3):
        step(second, number, -TARGETS[number])
    second.before_step(3, 10, None)
    both = off | torch.from_numpy(second.mask.flat().copy())
    assert int(both.sum()) == 10, "what is zero cannot shrink further, so the second has found others"
    assert torch.equal(seen(second), WEIGHTS.masked_fill(both, 0))
    changes = Before(first.learned()).changes()
    laid = {n: w + second.learned().lay(n, changes[n]).float() for n, w in split(WEIGHTS).items()}
    assert torch.equal(torch.cat([w.reshape(-1) for w in laid.values()]), seen(second))
    further = first.learned().refined(second.learned(), lambda n: torch.zeros(LAYOUT.shape(n)).bool())
    assert isinstance(further, ConesChange) and further.mask == (first.mask | second.mask)


def test_fewer_are_shut_off_where_shrinking_no_others_helps():
    delta = adaptation(count=20)
    target = WEIGHTS * 2  # growing helps
    target[[3, 8]] = 0
    step(delta, 0, target)
    for number in (1, 2, 3):
        step(delta, number, target)
    assert delta.mask.flat().nonzero()[0].tolist() == [3, 8]


def test_it_goes_back_to_looking_where_a_checkpoint_says_so():
    delta = adaptation(weight_lr=0.05)
    step(delta, 0, TARGETS[0])
    early = delta.state_dict()
    assert delta.learned().mask.count() == 0
    for number in (1, 2):
        step(delta, number, TARGETS[number])
    delta.before_step(3, 10, None)
    late, mask = delta.state_dict(), delta.mask
    delta.load_state_dict(early)
    assert delta.mask is None and all(torch.equal(t, early[n]) for n, t in delta.state_dict().items())
    for number in (1, 2):
        step(delta, number, TARGETS[number])
    delta.before_step(3, 10, None)
    assert delta.mask == mask
    other = adaptation()
    other.load_state_dict(late)
    assert other.mask == mask and torch.equal(seen(other), seen(delta))


def test_checkpoints_of_other_runs():
    delta = adaptation()
    full = torch.from_numpy(NeuronMask.full(LAYOUT).bits.copy())
    scales = {n: t for n, t in delta.state_dict().items() if n.startswith("scale.")}
    for state, said in (
        ({"mask": full}, "20 entries, expected at most 4"),
        ({"mask": full, "values": torch.zeros(20)}, "values is"),
        ({"mask": full[:1]}, "another run"),
        (scales, "sum.k is missing"),
        ({}, "scale.k is missing"),
    ):
        with pytest.raises(CheckpointError, match=said):
            delta.load_state_dict(state)


def test_impossible_settings():
    method = METHODS["cones"]
    for kind, bad in ((method.Selection, {"budget_percent": 60}), (method.Training, {"find_first": 1.0})):
        with pytest.raises(ValueError, match=next(iter(bad))):
            kind(**bad)
