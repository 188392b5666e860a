"""Low-rank changes on a toy: formulas computed another way, and what is said of bad settings."""

import numpy as np
import pytest
import torch

from cns_core.forget import forget
from cns_core.identity import ModelIdentity
from cns_core.memory import ConceptMemory, LearnedConcept
from cns_core.methods import METHODS
from cns_core.methods.low_rank.change import LowRankChange
from cns_core.methods.low_rank.largest import LargestChange
from cns_core.methods.low_rank.one_adapter import OneAdapterChange
from cns_core.projections import ProjectionLayout
from cns_core.settings import TrainSettings
from cns_core.training import ConceptTrainer, LatentImage, TrainingData

BASE = ModelIdentity("toy", "0")
LAYOUT = ProjectionLayout(("a.to_k", "a.to_v"), ((3, 4), (2, 4)))
ONE_AFTER_ANOTHER = ("low-rank naive", "low-rank merged", "low-rank orthogonal", "low-rank by magnitude")
ALL = ("orthogonal adaptation", "continual diffusion", "cidm", *ONE_AFTER_ANOTHER)


@pytest.fixture
def starter(toy, toy_material):
    """Starts one more concept by a method, on top of a memory."""

    def start(name, memory=None, rank=4, **settings):
        memory, method = memory or ConceptMemory(BASE, toy.layout), METHODS[name]
        prepared = method.prepare(toy_material(toy, ["a photo of word1"], 6, memory), method.Selection())
        chosen = method.Training(**{"rank": rank, "weight_lr": 1e-2, **settings})
        return method.start(prepared, memory, chosen, torch.device("cpu"))

    return start


@pytest.fixture
def learn(starter, toy):
    """A memory with one more concept in it."""

    def one_more(name, memory=None, steps=8, **settings):
        memory = memory or ConceptMemory(BASE, toy.layout)
        number = len(memory)
        adaptation = starter(name, memory, **settings)
        latents = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(number + 1))
        image = LatentImage(latents, ("a photo of <new>",), ("a photo of word1",))
        train = TrainSettings(steps=steps, token_lr=1e-2, seed=number, prior="none")
        vectors = {"toy": torch.linspace(-1, 1, 24)[None]}
        trainer = ConceptTrainer(toy, TrainingData((image,)), adaptation, vectors, train)
        trainer.run()
        concept = LearnedConcept(
            name=f"c{number}",
            token=f"<c{number}>",
            class_word="word1",
            kind="subject",
            captions=(f"a photo of <c{number}>",),
            method=name,
            change=adaptation.learned(),
            token_vectors=trainer.state().token_vectors,
            settings={},
            losses={},
            learned_at="now",
        )
        return memory.with_learned(concept)

    return one_more


def factors(memory, number, name):
    """(U, D) of a concept and projection, float64."""
    return tuple(t.double().numpy() for t in memory.concepts[number].change.added(name))


def random_change(layout, rank, seed, shared=False):
    generator = torch.Generator().manual_seed(seed)
    rows, count = sum(out for out, _ in layout.shapes), 1 if shared else len(layout.names)
    ups = torch.randn(rows, rank, generator=generator).half()
    return LowRankChange(layout, ups, torch.randn(count, rank, layout.shapes[0][1], generator=generator))


def set_factors(adaptation, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for factor in (adaptation.ups, adaptation.downs):
            factor.copy_(torch.randn(factor.shape, generator=generator))
    adaptation.before_forward()


# --- the change


@pytest.mark.parametrize("shared", [(False, False), (True, True), (True, False)])
def test_a_concept_learned_further_is_the_sum_of_products(shared):
    first, more = random_change(LAYOUT, 2, 0, shared[0]), random_change(LAYOUT, 1, 1, shared[1])
    both = first.refined(more, lambda name: torch.zeros(LAYOUT.shape(name)).bool())
    assert both.rank == 3 and both.shared == all(shared)
    for place, name in enumerate(LAYOUT.names):
        rows = slice(*((0, 3), (3, 5))[place])
        expected = sum(
            np.einsum("or,rw->ow", c.ups[rows].double(), c.downs[0 if c.shared else place].double())
            for c in (first, more)
        )
        laid = both.lay(name, torch.ones(LAYOUT.shape(name), dtype=torch.float16))
        np.testing.assert_allclose(laid.double().numpy(), 1 + expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("ups", "downs", "told"),
    [
        (torch.zeros(5, 2), torch.zeros(2, 2, 4), "ups is torch.float32.*expected float16"),
        (torch.zeros(4, 2).half(), torch.zeros(2, 2, 4), r"ups is torch.float16 \(4, 2\).*\(5, rank\)"),
        (torch.zeros(5, 0).half(), torch.zeros(2, 0, 4), "rank above 0"),
        (torch.zeros(()).half(), torch.zeros(2, 2, 4), r"ups is torch.float16 \(\)"),
        (
            torch.zeros(5, 2).half(),
            torch.zeros(3, 2, 4),
            r"downs is torch.float32 \(3, 2, 4\).*\(2, 2, 4\) or",
        ),
        (torch.zeros(5, 2).half(), torch.zeros(2, 2, 4).double(), "downs is torch.float64"),
        (torch.full((5, 2), torch.inf).half(), torch.zeros(2, 2, 4), "Some of its ups are not finite"),
        (torch.zeros(5, 2).half(), torch.full((1, 2, 4), torch.nan), "Some of its downs are not finite"),
    ],
)
def test_factors_that_fit_no_model_are_refused(ups, downs, told):
    with pytest.raises(ValueError, match=told):
        LowRankChange.read(LAYOUT, {"ups": ups, "downs": downs})


# --- all of them


@pytest.mark.parametrize("name", ALL)
def test_what_other_methods_left_stays(name, learn, toy):
    memory = ConceptMemory(BASE, toy.layout)
    for other in ("all K/V", "token alone"):
        material_of = METHODS[other]
        change = material_of.read(toy.layout, {} if other == "token alone" else dense(toy.layout))
        memory = memory.with_learned(as_concept(other, change, len(memory)))
    before = memory.changes()
    after = learn(name, memory)
    last = after.concepts[-1].change
    for projection, was in before.items():
        expected = last.lay(projection, was.clone())
        assert torch.equal(after.changes()[projection], expected)
        assert not torch.equal(expected, was)


def dense(layout):
    return {name: torch.full(shape, 1e-3).half() for name, shape, _ in layout.slices()}


def as_concept(method, change, number):
    return LearnedConcept(
        name=f"c{number}",
        token=f"<c{number}>",
        class_word="word1",
        kind="subject",
        captions=(f"a photo of <c{number}>",),
        method=method,
        change=change,
        token_vectors={"toy": torch.zeros(1, 24)},
        settings={},
        losses={},
        learned_at="now",
    )


@pytest.mark.parametrize("name", [n for n in ALL if n != "orthogonal adaptation"])
def test_a_rank_that_a_projection_has_not_is_refused(name, starter):
    with pytest.raises(ValueError, match=r"rank is 25.*smallest of the 6.*has rank 24.*Set rank to at most"):
        starter(name, rank=25)


# --- orthogonal adaptation


def test_concepts_answer_along_directions_of_their_own(learn):
    memory = None
    for _ in range(3):
        memory = learn("orthogonal adaptation", memory)
    slices = torch.cat([c.change.downs[0] for c in memory.concepts])
    torch.testing.assert_close(slices @ slices.T, torch.eye(12), atol=1e-5, rtol=0)
    for name in memory.layout.names:
        up, down = memory.concepts[2].change.added(name)
        assert up.abs().max() > 1e-3
        heard = up @ down @ memory.concepts[0].change.downs[0].T
        assert heard.abs().max() < 1e-5 * up.abs().max() * 24


def test_only_the_answers_move(starter):
    adaptation = starter("orthogonal adaptation")
    (group,) = adaptation.parameter_groups()
    assert list(group.parameters) == [adaptation.ups] and not adaptation.downs.requires_grad
    assert set(adaptation.state_dict()) == {"ups"}


def test_a_forgotten_concepts_directions_are_free_again(learn, starter):
    memory = learn("orthogonal adaptation", learn("orthogonal adaptation"))
    first, second = (c.change.downs for c in memory.concepts)
    third = starter("orthogonal adaptation", memory).downs.detach()
    again = starter("orthogonal adaptation", memory.without("c0")).downs.detach()
    assert torch.equal(again, first)
    assert not torch.allclose(third, first) and not torch.allclose(third, second)


def test_a_basis_has_so_many_slices_and_no_more(learn, starter):
    memory = learn("orthogonal adaptation", learn("orthogonal adaptation", rank=10), rank=10)
    told = r"have 24 directions, and 2 earlier concept\(s\) have taken 20 of them: 4 are left, but rank is 10"
    with pytest.raises(ValueError, match=told):
        starter("orthogonal adaptation", memory, rank=10)
    assert len(starter("orthogonal adaptation", memory, rank=4).downs[0]) == 4


def test_another_seed_is_another_basis(starter):
    one, other = (starter("orthogonal adaptation", basis_seed=seed).downs[0].detach() for seed in (0, 1))
    assert (one @ other.T).abs().max() < 0.9


# --- continual diffusion


def test_what_earlier_concepts_moved_is_held(learn, starter):
    memory = learn("continual diffusion", learn("continual diffusion"))
    adaptation = starter("continual diffusion", memory, keep_earlier=3.0)
    set_factors(adaptation, 5)
    expected, row = 0.0, 0
    for place, (name, (out, _), _) in enumerate(memory.layout.slices()):
        moved = sum(up @ down for up, down in (factors(memory, n, name) for n in (0, 1)))
        up = adaptation.ups[row : row + out].detach().double().numpy()
        product = up @ adaptation.downs[place].detach().double().numpy()
        expected += sum((abs(m) * p) ** 2 for m, p in zip(moved.flat, product.flat, strict=True))
        row += out
    found = adaptation.penalties()
    assert list(found) == ["L_forget"]
    assert found["L_forget"].item() == pytest.approx(3.0 * expected, rel=1e-3)  # of float16


def test_the_first_concept_is_held_by_nothing(starter):
    adaptation = starter("continual diffusion")
    set_factors(adaptation, 5)
    assert adaptation.penalties()["L_forget"].item() == 0


def test_holding_harder_moves_less_of_what_was_moved(learn):
    first, clashes = learn("continual diffusion"), []
    for keep in (0.0, 1e6):
        second = learn("continual diffusion", first, steps=20, keep_earlier=keep).concepts[1].change
        moved = first.changes()
        clash = [moved[n].float() * torch.mm(*second.added(n)) for n in first.layout.names]
        clashes.append(float(torch.cat(clash).square().sum()))
    assert clashes[1] < 0.5 * clashes[0]


# --- one adapter after another


def test_naively_the_weights_hold_one_adapter(learn):
    memory = learn("low-rank naive", learn("low-rank naive"))
    first, second = (c.change for c in memory.concepts)
    assert isinstance(second, OneAdapterChange) and (first.rank, second.rank, second.adapter) == (4, 8, 4)
    assert not torch.equal(second.ups[:, :4], first.ups)
    for name, change in memory.changes().items():
        up, down = factors(memory, 1, name)
        np.testing.assert_allclose(change.double().numpy(), up[:, :4] @ down[:4], atol=2e-4, rtol=1e-3)


def test_naively_a_concept_takes_its_own_share_away(learn):
    memory = learn("low-rank naive", learn("low-rank naive"))
    alone, both = memory.stage(1).changes(), memory.changes()
    for name, change in memory.without("c0").changes().items():
        torch.testing.assert_close(change, both[name] - alone[name], atol=2e-4, rtol=1e-2)


def test_naively_the_adapter_keeps_its_rank(learn, starter):
    with pytest.raises(
        ValueError, match="rank is 3, but the adapter that this memory's concepts share has rank 4"
    ):
        starter("low-rank naive", learn("low-rank naive"), rank=3)


def test_an_adapters_rank_from_outside_is_checked():
    tensors = {"ups": torch.zeros(5, 2).half(), "downs": torch.zeros(2, 2, 4).half()}
    for adapter, told in (
        (torch.tensor([3]), "rank 3; expected at most 2"),
        (torch.tensor([0]), "rank 0"),
        (torch.tensor([1.0]), r"adapter is torch.float32 \(1,\)"),
    ):
        with pytest.raises(ValueError, match=told):
            OneAdapterChange.read(LAYOUT, {**tensors, "adapter": adapter})
    with pytest.raises(ValueError, match="expected ups, downs and adapter"):
        OneAdapterChange.read(LAYOUT, tensors)


def test_merged_adapters_start_anew(learn, starter):
    first = learn("low-rank merged")
    one, two = starter("low-rank merged"), starter("low-rank merged", first)
    assert not two.ups.any() and not torch.allclose(one.downs, two.downs)


def test_an_orthogonal_start_reads_nothing_that_the_last_concept_read(learn, starter):
    memory = learn("low-rank orthogonal")
    started = starter("low-rank orthogonal", memory, rank=5).downs.detach()
    for name, down in zip(memory.layout.names, started, strict=True):
        last = memory.concepts[0].change.added(name)[1]
        assert (down @ last.T).abs().max() < 1e-5
        torch.testing.assert_close(down @ down.T, torch.eye(5), atol=1e-5, rtol=0)


def test_an_orthogonal_start_needs_room(learn, starter):
    memory = learn("low-rank orthogonal", rank=13)
    told = "rank is 13, and the concept before it has taken 13 of the 24 directions.*11 are orthogonal"
    with pytest.raises(ValueError, match=told):
        starter("low-rank orthogonal", memory, rank=13)


def test_by_magnitude_the_larger_change_stays():
    layout = ProjectionLayout(("a.to_k",), ((2, 2),))
    last = LowRankChange(layout, torch.tensor([[1.0], [-2.0]]).half(), torch.tensor([[[1.0, 3.0]]]).half())
    before = torch.tensor([[-1.0, 4.0], [1.5, 7.0]]).half()
    found = LargestChange(layout, (last,)).lay("a.to_k", before)
    # last is [[1, 3], [-2, -6]]; of two that are as large the last one counts
    assert found.tolist() == [[1.0, 4.0], [-2.0, 7.0]]


def test_by_magnitude_the_order_is_nothing(learn):
    memory = None
    for _ in range(3):
        memory = learn("low-rank by magnitude", memory)
    turned = ConceptMemory(BASE, memory.layout, memory.concepts[::-1])
    for name, change in memory.changes().items():
        assert torch.equal(turned.changes()[name].abs(), change.abs())
        products = np.stack([up @ down for up, down in (factors_of_part(memory, n, name) for n in range(3))])
        largest = np.abs(products).max(axis=0)
        np.testing.assert_allclose(change.abs().double().numpy(), largest, rtol=1e-3, atol=1e-6)


def test_by_magnitude_what_is_forgotten_is_gone_where_it_was_the_largest(learn):
    memory = learn("low-rank by magnitude", learn("low-rank by magnitude"))
    done = forget(memory, memory.concepts[0].token)
    before, after = memory.changes(), done.memory.changes()
    changed = sum(int((before[name] != after[name]).sum()) for name in before)
    assert 0 < changed == done.own + done.earlier and done.later > 0


def factors_of_part(memory, number, name):
    return tuple(t.double().numpy() for t in memory.concepts[number].change.parts[0].added(name))


def test_by_magnitude_it_is_trained_as_a_sum_and_looked_at_merged(learn, starter):
    memory = learn("low-rank by magnitude")
    adaptation = starter("low-rank by magnitude", memory)
    set_factors(adaptation, 5)
    name = memory.layout.names[0]
    weight, before = torch.zeros(memory.layout.shape(name)), memory.changes()[name].float()
    last = torch.mm(*adaptation.factors().added(name))
    function = adaptation.weight_functions()[name]
    torch.testing.assert_close(function(weight), before + last, atol=1e-2, rtol=1e-2)
    with torch.no_grad():
        adaptation.before_forward()
    merged = function(weight)
    assert torch.equal(
        merged, torch.where(last.half().abs() >= before.abs(), last.half(), before.half()).float()
    )
    adaptation.before_forward()
    assert not torch.equal(function(weight), merged)


def test_largest_entries_from_outside_are_checked():
    one = random_change(LAYOUT, 2, 0)
    for tensors in ({}, {"0.ups": one.ups}, {"0.ups": one.ups, "1.downs": one.downs}, one.tensors()):
        with pytest.raises(ValueError, match=r"no factors|expected 0\.ups"):
            LargestChange.read(LAYOUT, tensors)


# --- cidm


def test_columns_are_kept_orthogonal_to_earlier_ones(learn, starter):
    memory = learn("cidm", learn("cidm"), rank=3)
    adaptation = starter("cidm", memory, keep_earlier=2.0)
    set_factors(adaptation, 5)
    of_projections, row = [], 0
    for name, (out, _), _ in memory.layout.slices():
        columns = adaptation.ups[row : row + out].detach().double().numpy().T
        earlier = [column for n in (0, 1) for column in factors(memory, n, name)[0].T]
        assert len(earlier) == 7
        of_projections.append(np.mean([abs(np.dot(a, b)) for a in earlier for b in columns]))
        row += out
    found = adaptation.penalties()
    assert list(found) == ["orthogonality"]
    assert found["orthogonality"].item() == pytest.approx(2.0 * np.mean(of_projections), rel=1e-4)


def test_the_first_concept_has_none_to_be_orthogonal_to(starter):
    adaptation = starter("cidm")
    set_factors(adaptation, 5)
    assert adaptation.penalties()["orthogonality"].item() == 0


def test_asked_to_be_orthogonal_a_concept_writes_elsewhere(learn):
    first, cosines = learn("cidm"), []
    for keep in (0.0, 100.0):
        second = learn("cidm", first, steps=30, keep_earlier=keep)
        found = []
        for name in first.layout.names:
            (a, _), (b, _) = factors(second, 0, name), factors(second, 1, name)
            lengths = np.linalg.norm(a, axis=0)[:, None] * np.linalg.norm(b, axis=0)
            found.append(np.mean(np.abs(a.T @ b) / lengths))
        cosines.append(np.mean(found))
    assert cosines[1] < 0.7 * cosines[0]
