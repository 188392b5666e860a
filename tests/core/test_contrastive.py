"""The contrastive score and counted general neurons, against plain loops."""

import math

import pytest
import torch

from cns_core.method import Taught
from cns_core.methods import METHODS
from cns_core.methods.cns.scores import Contrast, Evidence, Rows
from cns_core.methods.cns.scores.contrastive import captions_without, contrastive, response
from cns_core.methods.cns.selection import ranks, select_neurons, top_per_row
from cns_core.methods.cns.settings import CnsSelection
from cns_core.projections import ProjectionLayout

LAYOUT = ProjectionLayout(("a.attn2.to_k", "a.attn2.to_v"), ((6, 20), (4, 20)))


def make(seed, captions):
    g = torch.Generator().manual_seed(seed)
    weights = {n: torch.randn(s, generator=g) for n, s in zip(LAYOUT.names, LAYOUT.shapes, strict=True)}
    return weights, [Evidence(torch.randn(3 + i % 3, 20, generator=g)) for i in range(captions)]


def loop_response(w, evidence):
    """|W| ||X_j|| |cos(X_j, Y_i)| as the paper has it, with the root mean square in place of the norm."""
    x = evidence.features.double()
    found = torch.zeros(w.shape, dtype=torch.float64)
    for i in range(w.shape[0]):
        y = [sum(float(w[i, j]) * float(t[j]) for j in range(w.shape[1])) for t in x]
        for j in range(w.shape[1]):
            column = [float(t[j]) for t in x]
            norm, of_y = (math.sqrt(sum(v * v for v in values)) for values in (column, y))
            cosine = sum(a * b for a, b in zip(column, y, strict=True)) / (norm * of_y)
            found[i, j] = abs(float(w[i, j])) * norm / math.sqrt(len(x)) * abs(cosine)
    return found


def loop_contrast(w, concept, without):
    mine, others = (torch.stack([loop_response(w, x) for x in group]) for group in (concept, without))
    return mine.mean(dim=0) - others.mean(dim=0) - others.std(dim=0, correction=0)


def whole(weight):
    return Rows("", slice(None), weight)


@pytest.mark.parametrize("seed", range(3))
def test_what_an_entry_has_to_do_with_its_output(seed):
    weights, (x,) = make(seed, 1)
    for w in weights.values():
        found = torch.from_numpy(response(whole(w), x)).double()
        torch.testing.assert_close(found, loop_response(w, x), atol=1e-5, rtol=1e-4)
        assert contrastive(whole(w), x) == pytest.approx(found.numpy())  # of a caption by itself


def test_a_concept_stands_out_by_more_than_the_spread_of_the_rest():
    weights, xs = make(4, 9)
    for w in weights.values():
        found = torch.from_numpy(contrastive(whole(w), Contrast(xs[:4], xs[4:])))
        expected = loop_contrast(w, xs[:4], xs[4:])
        up = expected > 0
        assert 0 < up.sum() < up.numel()
        torch.testing.assert_close(found[up].double(), expected[up], atol=1e-5, rtol=1e-4)
        assert bool((found[~up] == -math.inf).all())


def test_the_same_of_a_graphics_card():
    """What runs on tensors there, here on the CPU."""
    weights, xs = make(4, 9)

    class Rows_(Rows):
        array = property(lambda self: self.weight)
        magnitude = property(lambda self: self.weight.abs())

    class Evidence_(Evidence):
        array = property(lambda self: self.features)

    for w in weights.values():
        on_card = [Evidence_(x.features) for x in xs]
        found = contrastive(Rows_("", slice(None), w), Contrast(on_card[:4], on_card[4:]))
        assert isinstance(found, torch.Tensor)
        expected = torch.from_numpy(contrastive(whole(w), Contrast(xs[:4], xs[4:])))
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_minus_infinity_is_never_chosen():
    score = torch.tensor([[1.0, -math.inf, 3, -math.inf], [-math.inf] * 4])
    chosen = [[True, False, True, False], [False] * 4]
    for percent in (75, 100):
        assert top_per_row(score, percent).tolist() == top_per_row(score.numpy(), percent).tolist() == chosen
    assert ranks(score).tolist() == ranks(score.numpy()).tolist() == [[1, 4, 0, 4], [4] * 4]


def test_neurons_by_contrast_and_by_counting():
    weights, xs = make(5, 17)
    concept, without, general = xs[:4], xs[4:7], xs[7:]
    settings = CnsSelection("top percent", top_percent=40, score="contrastive", general_share=0.7)
    found = select_neurons(weights, LAYOUT, [Contrast(concept, without)], general, settings)
    for name, w in weights.items():
        saliency = loop_contrast(w, concept, without)
        times = torch.zeros(w.shape, dtype=torch.int)
        for x in general:
            u = loop_response(w, x)
            times += u >= u.sort(dim=1, descending=True).values[:, 7:8]
        base = (saliency >= saliency.sort(dim=1, descending=True).values[:, 7:8]) & (saliency > 0)
        assert torch.equal(found.general_mask.dense(name), times >= 7)  # .7 of 10
        assert torch.equal(found.concept_mask.dense(name), base & (times < 7))


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
def test_the_percent_found_for_a_budget_when_general_neurons_are_counted(share):
    weights, xs = make(6, 17)
    evidence = [Contrast(xs[:4], xs[4:7])], xs[7:]
    shares = {}
    for keep in range(1, 21):
        settings = CnsSelection(
            "top percent", top_percent=100 * keep / 20, score="contrastive", general_share=share
        )
        try:
            shares[keep] = 100 * select_neurons(weights, LAYOUT, *evidence, settings).concept_mask.share()
        except ValueError:
            shares[keep] = 0.0
    settings = CnsSelection(budget_percent=4.0, score="contrastive", general_share=share)
    percent = select_neurons(weights, LAYOUT, *evidence, settings).top_percent
    first = next(k for k in shares if shares[k] >= 4.0)
    assert round(percent * 20 / 100) == min((first - 1, first), key=lambda k: abs(shares.get(k, 0) - 4.0))


def test_captions_without_the_concept():
    taught = Taught("<x>", "dog", ("a photo of <x> in snow", "<x>", "<x> a photo of in snow"))
    assert captions_without(taught) == ["a photo of in snow"]
    with pytest.raises(ValueError, match="no other words in them: <x>"):
        captions_without(Taught("<x>", "dog", ("<x>",)))


def test_as_a_setting_of_cns(toy, toy_material):
    method = METHODS["cns"]
    material = toy_material(toy, ["a photo of word1", "the word1"], 6)
    plain = method.prepare(material, method.Selection(budget_percent=6.0))
    settings = method.Selection(budget_percent=6.0, score="contrastive", general_share=0.6)
    found = method.prepare(material, settings)
    assert found.mask.count() > 0 and found.mask != plain.mask
