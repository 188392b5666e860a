"""How much a neuron mattered: squared gradients while it was learned, and what they weigh later."""

import pytest
import torch

from cns_core.checkpoint import CheckpointError
from cns_core.methods.cns.change import CnsChange
from cns_core.methods.cns.masks import NeuronMask
from cns_core.methods.cns.settings import CnsTraining
from cns_core.methods.fisher.adaptation import FisherAdaptation
from cns_core.methods.fisher.change import FisherChange, importance
from cns_core.projections import ProjectionLayout

LAYOUT = ProjectionLayout(("k", "v"), ((3, 4), (2, 4)))


def mask_of(*flat):
    bits = torch.zeros(LAYOUT.total, dtype=torch.bool)
    bits[list(flat)] = True
    return NeuronMask.from_dense(LAYOUT, {n: bits[w].reshape(s) for n, s, w in LAYOUT.slices()})


def change_of(values, fisher=None):
    """A change by flat position, with its Fisher information or none."""
    kept = [torch.tensor([of[i] for i in sorted(of)]).half() for of in (values, fisher or {})]
    return FisherChange(mask_of(*values), *kept) if fisher else CnsChange(mask_of(*values), kept[0])


class Before:
    """What earlier concepts left, in order."""

    layout = LAYOUT

    def __init__(self, *changes):
        self._changes = changes

    def changes(self):
        found = {n: torch.zeros(s).half() for n, s, _ in LAYOUT.slices()}
        for change in self._changes:
            found = {n: change.lay(n, on) for n, on in found.items()}
        return found

    def left(self):
        return {f"<{i}>": change for i, change in enumerate(self._changes)}

    def moved(self, name):
        found = torch.zeros(LAYOUT.shape(name), dtype=torch.bool)
        for change in self._changes:
            found |= change.moved(name)
        return found


def step(delta, coefficients, number, batches=1):
    """One step whose loss has these gradients, and L_reg's."""
    delta.before_step(number, 10, None)
    delta.values.grad = None
    for _ in range(batches):
        delta.before_forward()
        functions = delta.weight_functions()
        loss = sum(
            (functions[n](torch.ones(s)) * coefficients[w].reshape(s)).sum() for n, s, w in LAYOUT.slices()
        )
        (loss / batches + delta.penalties()["L_reg"] / batches).backward()
    delta.rate_factors(number, 10)


def test_the_mean_square_of_gradients_without_those_of_l_reg():
    delta = FisherAdaptation(mask_of(1, 5, 13), Before(change_of({5: 1.0})), CnsTraining(keep_base=1e3))
    gradients = torch.randn(4, LAYOUT.total, generator=torch.Generator().manual_seed(0))
    for number, of_step in enumerate(gradients):
        step(delta, of_step, number, batches=1 + number % 2)
    assert delta.values.grad.abs().max() > 100  # L_reg has its say in what is learned
    squares = gradients[:, [1, 5, 13]].square().mean(dim=0)
    kept = delta.learned().fisher
    assert kept.dtype == torch.float16
    torch.testing.assert_close(kept.float(), squares / squares.mean(), atol=1e-3, rtol=1e-3)


def test_gradients_too_small_for_float16_are_kept():
    delta = FisherAdaptation(mask_of(0, 1), Before(), CnsTraining())
    gradient = torch.zeros(LAYOUT.total)
    gradient[:2] = torch.tensor([1e-6, 3e-6])
    step(delta, gradient, 0)
    torch.testing.assert_close(delta.learned().fisher.float(), torch.tensor([0.2, 1.8]), atol=1e-3, rtol=0)


def test_a_step_that_was_stopped_leaves_nothing():
    delta = FisherAdaptation(mask_of(0, 1), Before(), CnsTraining())
    delta.before_step(0, 10, None)
    delta.before_forward()
    delta.weight_functions()["k"](torch.ones(3, 4)).sum().backward()  # and no more of that step
    assert not delta.state_dict()["squares"].any()
    step(delta, torch.full((LAYOUT.total,), 2.0), 0)
    assert delta.state_dict()["squares"].tolist() == [4, 4]


def test_where_nothing_was_seen_all_count_alike():
    assert FisherAdaptation(mask_of(0, 1), Before(), CnsTraining()).learned().fisher.tolist() == [1, 1]


def test_l_reg_holds_what_mattered_and_lets_go_of_what_did_not():
    first = change_of({2: 0.5, 5: 1.0, 9: 2.0}, {2: 3.0, 5: 0.0, 9: 0.25})
    second = change_of({5: 1.5, 13: 4.0}, {5: 0.5, 13: 2.0})
    without = change_of({13: 3.0, 14: 1.0})  # of plain CNS
    earlier = Before(first, second, without)
    expected = torch.zeros(LAYOUT.total)
    expected[[2, 5, 9, 13, 14]] = torch.tensor([3.0, 0.5, 0.25, 2.0 + 1, 1])
    found = importance(earlier)
    assert torch.equal(torch.cat([found[n].reshape(-1) for n in LAYOUT.names]), expected)

    delta = FisherAdaptation(mask_of(0, 2, 5, 13), earlier, CnsTraining(keep_earlier=10, keep_base=0))
    assert delta.values.tolist() == [0, 0.5, 1.5, 3.0]
    with torch.no_grad():
        delta.values += torch.tensor([7.0, 1, 2, -1])
    # 10 (3 * 1 + .5 * 4 + 3 * 1); nobody moved entry 0
    assert delta.penalties()["L_reg"].item() == pytest.approx(80)


def test_a_file_keeps_it_and_refuses_what_it_cannot_be():
    change = change_of({2: 0.5, 5: 1.0}, {2: 3.0, 5: 0.0})
    again = FisherChange.read(LAYOUT, change.tensors())
    assert again.mask == change.mask and again.fisher.tolist() == [3, 0] and again.values.tolist() == [0.5, 1]
    for fisher in (torch.tensor([1.0, -1]).half(), torch.tensor([float("inf"), 1]).half()):
        with pytest.raises(ValueError, match="negative or not finite"):
            FisherChange.read(LAYOUT, {**change.tensors(), "fisher": fisher})
    with pytest.raises(ValueError, match=r"float32 of shape \(2,\)"):
        FisherChange.read(LAYOUT, {**change.tensors(), "fisher": torch.ones(2)})
    with pytest.raises(ValueError, match="expected mask, values and fisher"):
        FisherChange.read(LAYOUT, CnsChange(change.mask, change.values).tensors())


def test_learned_further_the_later_one_knows_how_much_an_entry_matters():
    first = change_of({2: 0.5, 5: 1.0, 9: 2.0}, {2: 3.0, 5: 1.0, 9: 0.5})
    by = change_of({5: 3.0, 13: 1.0}, {5: 0.25, 13: 4.0})

    def ruled(name):  # entry 9 is another's by now
        return mask_of(9).dense(name)

    both = first.refined(by, ruled)
    assert both.mask == mask_of(2, 5, 13)
    assert both.values.tolist() == [0.5, 3, 1] and both.fisher.tolist() == [3, 0.25, 4]


def test_a_concept_learned_further_begins_with_what_it_has_left_itself():
    class Refining(Before):
        def moved(self, name):  # by others
            return torch.zeros(LAYOUT.shape(name), dtype=torch.bool)

    delta = FisherAdaptation(mask_of(1, 5), Refining(change_of({5: 1.0})), CnsTraining())
    assert delta.values.tolist() == [0, 1] and not len(delta.shared)
    assert delta.weight_functions()["k"](torch.zeros(3, 4)).reshape(-1)[5] == 1


def test_a_checkpoint_of_plain_cns_is_refused():
    delta = FisherAdaptation(mask_of(0, 1), Before(), CnsTraining())
    with pytest.raises(CheckpointError, match="squares is missing"):
        delta.load_state_dict({"values": torch.zeros(2)})
