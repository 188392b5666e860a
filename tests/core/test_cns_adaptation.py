"""CNS's packed values: what is added to a weight, what a gradient reaches, and L_reg."""

import pytest
import torch

from cns_core.methods.cns.adaptation import CnsAdaptation
from cns_core.methods.cns.change import CnsChange
from cns_core.methods.cns.masks import NeuronMask
from cns_core.methods.cns.settings import CnsTraining
from cns_core.projections import ProjectionLayout

LAYOUT = ProjectionLayout(("k", "v"), ((3, 4), (2, 4)))


def mask_of(*flat):
    bits = torch.zeros(LAYOUT.total, dtype=torch.bool)
    bits[list(flat)] = True
    return NeuronMask.from_dense(LAYOUT, {n: bits[w].reshape(s) for n, s, w in LAYOUT.slices()})


class Before:
    """What earlier concepts left: value by flat position."""

    layout = LAYOUT

    def __init__(self, values=None):
        values = values or {}
        change = CnsChange(mask_of(*values), torch.tensor([values[i] for i in sorted(values)]).half())
        self._change = change

    def changes(self):
        return {n: self._change.lay(n, torch.zeros(s).half()) for n, s, _ in LAYOUT.slices()}

    def moved(self, name):
        return self._change.moved(name)


def adaptation(mask, earlier=None, **settings):
    return CnsAdaptation(mask, Before(earlier), CnsTraining(**settings))


def applied(delta):
    return torch.cat([delta.weight_functions()[n](torch.zeros(s)).reshape(-1) for n, s, _ in LAYOUT.slices()])


def test_earlier_values_stay_and_only_the_mask_can_move():
    delta = adaptation(mask_of(1, 5, 13), {5: 0.5, 7: 0.75, 19: 2.0})
    assert delta.values.tolist() == [0, 0.5, 0] and delta.start.tolist() == [0.5]
    assert delta.shared.tolist() == [1]
    expected = torch.zeros(20)
    expected[[5, 7, 19]] = torch.tensor([0.5, 0.75, 2.0])
    assert torch.equal(applied(delta), expected)
    with torch.no_grad():
        delta.values.copy_(torch.tensor([10.0, 20, 30]))
    delta.before_forward()
    expected[[1, 5, 13]] = torch.tensor([10.0, 20, 30])
    assert torch.equal(applied(delta), expected)


def test_gradients_reach_exactly_the_packed_values():
    delta = adaptation(mask_of(0, 6, 15))
    weight = torch.randn(3, 4)
    coefficients = torch.arange(12.0).reshape(3, 4)
    (delta.weight_functions()["k"](weight) * coefficients).sum().backward()
    assert delta.values.grad.tolist() == [0, 6, 0]


def test_the_weight_itself_is_never_touched():
    delta = adaptation(mask_of(0))
    with torch.no_grad():
        delta.values.fill_(3)
    delta.before_forward()
    weight = torch.ones(3, 4, dtype=torch.float16)
    out = delta.weight_functions()["k"](weight)
    assert out.dtype == torch.float16 and out[0, 0] == 4 and weight.sum() == 12


def test_what_earlier_concepts_left_is_added_in_every_precision_that_comes_by():
    delta = adaptation(mask_of(1), {1: 0.5, 3: 0.25})
    for dtype in (torch.float32, torch.float16, torch.float32):
        weight = torch.ones(3, 4, dtype=dtype)
        for _ in range(2):
            out = delta.weight_functions()["k"](weight)
            assert out.dtype == dtype and out.reshape(-1).tolist() == [1, 1.5, 1, 1.25] + [1] * 8
        assert weight.sum() == 12
    with torch.inference_mode():  # a preview is drawn
        drawn = delta.weight_functions()["k"](torch.ones(3, 4, dtype=torch.bfloat16))
    out = delta.weight_functions()["k"](torch.ones(3, 4, dtype=torch.bfloat16))
    assert torch.equal(out, drawn)
    out.sum().backward()
    assert delta.values.grad.tolist() == [1]


def test_eq7_against_a_plain_loop():
    g = torch.Generator().manual_seed(0)
    earlier_values = dict(zip([4, 9, 12], torch.randn(3, generator=g).half().tolist(), strict=True))
    concept = [1, 4, 5, 9, 17]
    delta = adaptation(mask_of(*concept), earlier_values, keep_earlier=0.3, keep_base=0.07)
    w = torch.randn(5, generator=g)  # W_t - W_0 on the mask
    with torch.no_grad():
        delta.values.copy_(w)
    moved = dict(zip(concept, w.tolist(), strict=True))
    first = sum((moved[i] - earlier_values[i]) ** 2 for i in concept if i in earlier_values)
    second = sum(value**2 for value in moved.values())
    assert delta.penalties()["L_reg"].item() == pytest.approx(0.3 * first + 0.07 * second, rel=1e-5)


def test_what_is_kept_is_laid_on_what_was_there():
    delta = adaptation(mask_of(1, 5, 13), {5: 0.5, 7: 0.75})
    with torch.no_grad():
        delta.values.copy_(torch.tensor([1.0, 2.0, 3.0]))
    change = delta.learned()
    laid = {n: change.lay(n, before) for n, before in Before({5: 0.5, 7: 0.75}).changes().items()}
    flat = torch.cat([laid[n].reshape(-1) for n in LAYOUT.names])
    assert {i: v for i, v in enumerate(flat.tolist()) if v} == {1: 1, 5: 2, 7: 0.75, 13: 3}
    again = CnsChange.read(LAYOUT, change.tensors())
    assert again.mask == change.mask and torch.equal(again.values, change.values)


def test_values_must_fit_their_mask_and_be_finite():
    with pytest.raises(ValueError, match="the mask selects 1 entries"):
        CnsChange(mask_of(0), torch.zeros(2, dtype=torch.float16))
    with pytest.raises(ValueError, match="not finite"):
        CnsChange(mask_of(0), torch.tensor([float("inf")]).half())
    with pytest.raises(ValueError, match="expected mask and values"):
        CnsChange.read(LAYOUT, {"mask": torch.zeros(3)})


def test_a_concept_learned_further_goes_on_from_its_own_values():
    class Own(Before):
        """Nobody else's: the concept that is learned further is not among those to be kept."""

        def moved(self, name):
            return torch.zeros(LAYOUT.shape(name), dtype=torch.bool)

    delta = CnsAdaptation(mask_of(1, 5), Own({5: 0.5, 7: 0.75}), CnsTraining())
    assert delta.values.tolist() == [0, 0.5] and not len(delta.shared)
