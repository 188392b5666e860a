"""Submodular selection against a plain greedy over all entries, one by one."""

import pytest
import torch

from cns_core.methods import METHODS
from cns_core.methods.cns.masks import NeuronMask
from cns_core.methods.fisher.change import FisherChange
from cns_core.methods.scns import profiles_of
from cns_core.methods.scns.greedy import Terms, choose
from cns_core.projections import ProjectionLayout

LAYOUT = ProjectionLayout(("k", "v"), ((5, 9), (4, 9)))  # fewer rows than are sampled, so every row counts
CPU = torch.device("cpu")


def terms_of(seed, risk=0.0, near=9):
    g = torch.Generator().manual_seed(seed)
    shapes = list(zip(LAYOUT.names, LAYOUT.shapes, strict=True))
    return Terms(
        {n: torch.rand(s, generator=g) for n, s in shapes},
        torch.randn(9, 4, generator=g),
        {n: torch.rand(s, generator=g) * (torch.rand(s, generator=g) < 0.3) for n, s in shapes},
        {n: 1 + torch.randint(0, 3, s, generator=g).float() for n, s in shapes},
        risk,
        near,
    )


def similarities(terms, name, i):
    """Of a row: how far the entry of each column stands for that of each other, [entry][other]."""
    w, p = terms.magnitudes[name][i].tolist(), terms.profiles.tolist()
    rows = []
    for entry in range(9):
        agree = [sum(a * b for a, b in zip(p[entry], other, strict=True)) for other in p]
        nearest = sorted(range(9), key=lambda j: -agree[j])[: terms.near]
        rows.append([w[entry] * w[o] * max(0.0, agree[o]) * (o in nearest) for o in range(9)])
    return rows


def plain_greedy(terms, budget):
    """Each time the entry of all that is worth most, while the budget lasts."""
    rows = [(name, i) for name, (out, _) in zip(LAYOUT.names, LAYOUT.shapes, strict=True) for i in range(out)]
    similar = {row: similarities(terms, *row) for row in rows}
    unit = sum(sum(map(sum, of_row)) for of_row in similar.values()) / LAYOUT.total
    risk, cost = ({(n, i): of[n][i].tolist() for n, i in rows} for of in (terms.risks, terms.costs))
    covered = {row: [0.0] * 9 for row in rows}
    chosen, spent = set(), 0.0

    def worth(place):
        row, j = place[:2], place[2]
        gain = sum(max(0.0, s - c) for s, c in zip(similar[row][j], covered[row], strict=True))
        return (gain / unit - terms.risk * risk[row][j]) / cost[row][j]

    while True:
        best = max(((*row, j) for row in rows for j in range(9) if (*row, j) not in chosen), key=worth)
        row, j = best[:2], best[2]
        if worth(best) <= 1e-9 or spent + cost[row][j] > budget:
            return chosen
        chosen.add(best)
        spent += cost[row][j]
        covered[row] = list(map(max, covered[row], similar[row][j]))


def found(mask):
    return {(n, int(i), int(j)) for n in LAYOUT.names for i, j in mask.dense(n).nonzero()}


@pytest.mark.parametrize(("seed", "risk", "near"), [(0, 0.0, 9), (1, 0.5, 9), (2, 1.5, 4), (3, 0.3, 2)])
@pytest.mark.parametrize("budget", [6, 20])
def test_it_chooses_what_a_plain_greedy_chooses(seed, risk, near, budget):
    terms = terms_of(seed, risk, near)
    expected = plain_greedy(terms, budget)
    assert expected and found(choose(LAYOUT, terms, budget, CPU)) == expected


def test_what_covers_nothing_new_is_not_chosen_whatever_the_budget():
    terms = terms_of(4)
    profiles = torch.zeros(9, 3)
    profiles[0, 0] = profiles[1, 0] = profiles[2, 1] = profiles[3, 2] = 1  # 0 and 1 say the same
    for name, magnitude in terms.magnitudes.items():
        magnitude.fill_(1.0)
        terms.costs[name].fill_(1.0)
    terms = Terms(terms.magnitudes, profiles, terms.risks, terms.costs, 0.0, 9)
    mask = choose(LAYOUT, terms, 1000, CPU)
    for name in LAYOUT.names:
        columns = mask.dense(name).sum(dim=0)
        rows = LAYOUT.shape(name)[0]
        assert columns[:2].sum() == rows and columns[2:4].tolist() == [rows, rows]
        assert not columns[4:].any()


def test_rows_beyond_one_batch_are_chosen_as_by_themselves(monkeypatch):
    terms = terms_of(5, risk=0.5)
    expected = choose(LAYOUT, terms, 20, CPU)
    monkeypatch.setattr("cns_core.methods.scns.greedy._ROWS_AT_ONCE", {"cpu": 2})
    assert choose(LAYOUT, terms, 20, CPU) == expected


def test_a_profile_is_what_a_caption_says_above_what_prompts_say_in_general():
    g = torch.Generator().manual_seed(6)
    captions, general = ([torch.randn(2 + i, 9, generator=g) for i in range(n)] for n in (3, 5))
    expected = torch.zeros(9, 3)
    for j in range(9):
        strength = [[(sum(float(t[j]) ** 2 for t in x) / len(x)) ** 0.5 for x in group]
                    for group in (captions, general)]  # fmt: skip
        for c in range(3):
            expected[j, c] = strength[0][c] - sum(strength[1]) / 5
    torch.testing.assert_close(profiles_of(captions, general), expected)


class Earlier:
    """One concept, which has left its neurons and how much they matter."""

    def __init__(self, layout, change=None):
        self.layout, self._left = layout, {} if change is None else {"<a>": change}

    def taught(self):
        return ()

    def left(self):
        return self._left

    def changes(self):
        found = {n: torch.zeros(s).half() for n, s, _ in self.layout.slices()}
        return {n: c.lay(n, on) for c in self._left.values() for n, on in found.items()} or found

    def moved(self, name):
        moved = [change.moved(name) for change in self._left.values()]
        return moved[0] if moved else torch.zeros(self.layout.shape(name)).bool()


@pytest.fixture
def start(toy, toy_material):
    def begin(change=None, **settings):
        method = METHODS["scns"]
        material = toy_material(toy, ["a photo of word1", "the word1"], 6)
        prepared = method.prepare(material, method.Selection(budget_percent=6.0, **settings))
        return method.start(prepared, Earlier(toy.layout, change), method.Training(), CPU)

    return begin


def test_what_mattered_to_earlier_concepts_is_left_alone_the_more_the_risk(start):
    first = start()
    change = first.learned()  # nothing was seen, so that all of it matters alike
    shared = [(start(change, risk=risk).mask & first.mask).count() for risk in (0.0, 1.0, 1e6)]
    assert shared[0] > shared[1] > shared[2] == 0


def test_where_everything_is_taken_it_says_so(start, toy):
    everything = NeuronMask.full(toy.layout)
    ones = torch.ones(everything.count()).half()
    with pytest.raises(ValueError, match="No entry is worth its risk: with risk 1e\\+06"):
        start(FisherChange(everything, ones, ones), risk=1e6)


def test_about_the_budget_is_spent(start):
    assert start().mask.share() == pytest.approx(0.06, abs=0.01)


def test_impossible_settings():
    for bad in ({"budget_percent": 0}, {"risk": -1}, {"near": 0}, {"tokens": "some"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            METHODS["scns"].Selection(**bad)
