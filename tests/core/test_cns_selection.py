"""Eq. 3-6 against plain loops on small matrices."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from cns_core.methods.cns.scores import SCORES, Evidence, Rows
from cns_core.methods.cns.scores.wanda import wanda
from cns_core.methods.cns.selection import Ranking, find_percent, ranks, select_neurons, top_per_row
from cns_core.methods.cns.settings import CnsSelection
from cns_core.projections import ProjectionLayout
from cns_core.text_features import counted_tokens

LAYOUT = ProjectionLayout(("a.attn2.to_k", "a.attn2.to_v"), ((6, 20), (4, 20)))


def make(seed, captions):
    g = torch.Generator().manual_seed(seed)
    weights = {n: torch.randn(s, generator=g) for n, s in zip(LAYOUT.names, LAYOUT.shapes, strict=True)}
    return weights, [Evidence(torch.randn(3 + i % 3, 20, generator=g)) for i in range(captions)]


@pytest.fixture(scope="module")
def ranking():
    with ThreadPoolExecutor(2) as pool:
        yield Ranking(wanda, pool, 2)


def whole(weight):
    return Rows("", slice(None), weight)


def loop_score(weight, evidence):
    x = evidence.features
    out = torch.zeros_like(weight)
    for i in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            out[i, j] = abs(float(weight[i, j])) * sum(float(v) ** 2 for v in x[:, j]) ** 0.5
    return out


def loop_top(score, percent):
    chosen = torch.zeros_like(score, dtype=torch.bool)
    keep = max(1, round(score.shape[1] * percent / 100))
    for i in range(score.shape[0]):
        for j in sorted(range(score.shape[1]), key=lambda j: -float(score[i, j]))[:keep]:
            chosen[i, j] = True
    return chosen


@pytest.mark.parametrize("seed", range(5))
def test_eq3_importance(seed):
    weights, (x,) = make(seed, 1)
    for w in weights.values():
        torch.testing.assert_close(torch.from_numpy(wanda(whole(w), x)), loop_score(w, x))


@pytest.mark.parametrize("percent", [1, 10, 35, 50, 100])
def test_eq4_base_neurons(percent, ranking):
    weights, xs = make(1, 4)
    for w in weights.values():
        expected = torch.ones_like(w, dtype=torch.bool)
        for x in xs:
            expected &= loop_top(loop_score(w, x), percent)
        assert torch.equal(ranking.common_top(whole(w), xs, percent), expected)


def test_eq5_eq6_concept_neurons():
    weights, xs = make(2, 9)
    settings = CnsSelection(select_by="top percent", top_percent=40)
    found = select_neurons(weights, LAYOUT, xs[:3], xs[3:], settings)
    for name, w in weights.items():
        base, general = torch.ones_like(w, dtype=torch.bool), torch.ones_like(w, dtype=torch.bool)
        for x in xs[:3]:
            base &= loop_top(loop_score(w, x), 40)
        for x in xs[3:]:
            general &= loop_top(loop_score(w, x), 40)
        assert torch.equal(found.concept_mask.dense(name), base & ~general)
        assert torch.equal(found.concept_mask.dense(name), ~(~base | general))  # as the paper prints Eq. 6
        assert torch.equal(found.general_mask.dense(name), general)


def test_every_row_gets_its_own_top():
    score = torch.tensor([[1.0, 2, 3, 4], [400, 300, 200, 100]])
    assert top_per_row(score.numpy(), 50).tolist() == top_per_row(score, 50).tolist()
    assert ranks(score.numpy()).tolist() == ranks(score).tolist() == [[3, 2, 1, 0], [0, 1, 2, 3]]
    assert top_per_row(score, 50).tolist() == [[False, False, True, True], [True, True, False, False]]


def test_the_chosen_score_is_used_and_told_which_rows_it_sees(monkeypatch):
    weights, xs = make(3, 6)

    def contrary(rows, evidence):
        assert torch.equal(rows.weight, weights[rows.projection][rows.which])
        return -wanda(rows, evidence)

    settings = CnsSelection(select_by="top percent", top_percent=30)
    plain = select_neurons(weights, LAYOUT, xs[:2], xs[2:], settings)
    monkeypatch.setitem(SCORES, settings.score, contrary)
    other = select_neurons(weights, LAYOUT, xs[:2], xs[2:], settings)
    assert not (plain.concept_mask & other.concept_mask).count()
    select_neurons(weights, LAYOUT, xs[:2], xs[2:], CnsSelection(budget_percent=5.0))


def test_captions_beyond_one_batch_of_scores_count_too(ranking):
    weights, xs = make(9, 40)
    (weight, *_) = weights.values()
    expected = torch.ones_like(weight, dtype=torch.bool)
    for x in xs:
        expected &= loop_top(loop_score(weight, x), 60)
    assert expected.any() and torch.equal(ranking.common_top(whole(weight), xs, 60), expected)


def test_selection_leaves_the_process_as_it_was():
    threads = torch.get_num_threads()
    seen = []

    class Watching(dict):
        def __getitem__(self, name):
            seen.append(torch.get_num_threads())
            return super().__getitem__(name)

    weights, xs = make(3, 6)
    select_neurons(
        Watching(weights), LAYOUT, xs[:2], xs[2:], CnsSelection(select_by="top percent", top_percent=30)
    )
    assert set(seen) == {threads} and torch.get_num_threads() == threads


@pytest.mark.parametrize("budget", [2.0, 6.5, 12.0])
def test_a_budget_is_met(budget):
    g = torch.Generator().manual_seed(4)
    layout = ProjectionLayout(("a", "b"), ((64, 200), (32, 200)))
    weights = {n: torch.randn(s, generator=g) for n, s in zip(layout.names, layout.shapes, strict=True)}
    xs = [Evidence(torch.randn(6, 200, generator=g)) for _ in range(12)]
    found = select_neurons(weights, layout, xs[:3], xs[3:], CnsSelection(budget_percent=budget))
    assert 100 * found.concept_mask.share() == pytest.approx(budget, abs=0.6)


def test_the_percent_found_for_a_budget_is_exact_on_whole_matrices(ranking):
    weights, xs = make(5, 8)  # fewer rows than are sampled, so every row counts
    budget = CnsSelection(budget_percent=8.0)
    percent = find_percent(ranking, list(weights.items()), xs[:2], xs[2:], budget)
    share = {}
    for keep in range(1, 21):
        settings = CnsSelection(select_by="top percent", top_percent=100 * keep / 20)
        try:
            share[keep] = 100 * select_neurons(weights, LAYOUT, xs[:2], xs[2:], settings).concept_mask.share()
        except ValueError:
            share[keep] = 0.0
    first = next(k for k in share if share[k] >= 8.0)
    nearest = min((first - 1, first), key=lambda k: abs(share.get(k, 0) - 8.0))
    assert round(percent * 20 / 100) == nearest


def test_an_unreachable_budget_names_the_peak():
    weights, xs = make(6, 4)
    with pytest.raises(ValueError, match=r"50 % of K/V cannot be reached.*at most about \d+\.\d\d %"):
        select_neurons(weights, LAYOUT, xs[:2], xs[2:], CnsSelection(budget_percent=50))


def test_settings_that_leave_no_neurons():
    weights, xs = make(7, 2)
    with pytest.raises(ValueError, match="leave no neurons"):
        select_neurons(weights, LAYOUT, xs[:1], xs[:1], CnsSelection(select_by="top percent", top_percent=20))


def test_which_tokens_count():
    x = torch.tensor([[100.0, 0], [3, 4], [0, 2], [9, 9]])
    words = torch.tensor([False, True, True, False])
    assert counted_tokens(x, words, "all tokens") is x
    assert counted_tokens(x, words, "caption words").tolist() == [[3, 4], [0, 2]]
    torch.testing.assert_close(
        counted_tokens(x, words, "normalised words"), torch.tensor([[0.6, 0.8], [0, 1]])
    )
    with pytest.raises(ValueError, match="no words left"):
        counted_tokens(x, torch.zeros(4, dtype=torch.bool), "caption words")
    with pytest.raises(ValueError, match="Unknown choice"):
        counted_tokens(x, words, "some")


@pytest.mark.parametrize(
    "bad",
    [
        {"select_by": "luck"},
        {"budget_percent": float("nan")},
        {"top_percent": 0},
        {"calibration_prompts": 129},
    ],
)
def test_impossible_settings(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        CnsSelection(**bad)
