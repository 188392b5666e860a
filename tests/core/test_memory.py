import pytest
import torch

from cns_core.identity import ModelIdentity
from cns_core.memory import ConceptMemory, LearnedConcept
from cns_core.methods.cns.change import CnsChange
from cns_core.methods.cns.masks import NeuronMask
from cns_core.methods.directions.change import DirectionsChange
from cns_core.projections import ProjectionLayout

LAYOUT = ProjectionLayout(("a.to_k", "a.to_v"), ((3, 4), (2, 4)))
BASE = ModelIdentity("SD1", "ab" * 32)


def learned(name, entries, **changes):
    bits = torch.zeros(LAYOUT.total, dtype=torch.bool)
    bits[list(entries)] = True
    mask = NeuronMask.from_dense(LAYOUT, {n: bits[w].reshape(s) for n, s, w in LAYOUT.slices()})
    fields = {
        "name": name,
        "token": f"<{name}>",
        "class_word": "dog",
        "kind": "subject",
        "captions": (f"a photo of <{name}>",),
        "method": "cns",
        "change": CnsChange(mask, torch.tensor([entries[i] for i in sorted(entries)], dtype=torch.float16)),
        "token_vectors": {"clip_l": torch.arange(4.0)[None]},
        "settings": {"train": {"steps": 3}},
        "losses": {"diffusion": torch.rand(3)},
        "learned_at": "2026-01-01T00:00:00+00:00",
    }
    return LearnedConcept(**{**fields, **changes})


def memory(*concepts):
    return ConceptMemory(BASE, LAYOUT, concepts)


THREE = memory(
    learned("one", {0: 1, 5: 2, 13: 3}),
    learned("two", {5: 20, 7: 30}),
    learned("three", {7: -1, 13: -2, 19: -3}),
)


def dense(m):
    flat = torch.cat([change.reshape(-1) for change in m.changes().values()])
    return {i: v for i, v in enumerate(flat.tolist()) if v}


def test_the_latest_concept_rules_each_entry():
    assert dense(THREE) == {0: 1, 5: 20, 7: -1, 13: -2, 19: -3}


@pytest.mark.parametrize("which", [2, "2", "two", "<two>", " Two "])
def test_any_stage_by_number_name_or_token(which):
    stage = THREE.stage(which)
    assert stage.names() == ["one", "two"] and dense(stage) == {0: 1, 5: 20, 7: 30, 13: 3}


def test_stage_zero_is_the_base_and_bad_stages_are_told():
    assert dense(THREE.stage(0)) == {} and not len(THREE.stage(0))
    with pytest.raises(ValueError, match="3 concepts"):
        THREE.stage(4)
    with pytest.raises(ValueError, match=r"No concept 'four'.*one, two, three"):
        THREE.stage("four")


def test_forgetting_one_concept_gives_back_what_only_it_moved():
    less = THREE.without("two")
    assert less.names() == ["one", "three"] and dense(less) == {0: 1, 5: 2, 7: -1, 13: -2, 19: -3}
    assert len(THREE) == 3


def test_names_and_tokens_are_unique():
    with pytest.raises(ValueError, match="share a name"):
        memory(learned("one", {0: 1}), learned("ONE", {1: 1}, token="<x>"))
    with pytest.raises(ValueError, match="share a token"):
        memory(learned("one", {0: 1}), learned("two", {1: 1}, token="<one>"))


def test_entries_that_any_concept_has_moved():
    moved = torch.cat([THREE.moved(name).reshape(-1) for name in LAYOUT.names])
    assert moved.nonzero().reshape(-1).tolist() == [0, 5, 7, 13, 19]


def test_a_concept_of_another_layout_is_refused():
    with pytest.raises(ValueError, match="'one' was learned on another model"):
        ConceptMemory(BASE, ProjectionLayout(("a.to_k",), ((20, 1),)), THREE.concepts[:1])


def test_another_base_is_refused_and_both_are_named():
    with pytest.raises(ValueError, match=r"SD1 model abababababab.*SDXL model cdcdcdcdcdcd"):
        THREE.check_base(ModelIdentity("SDXL", "cd" * 32))
    THREE.check_base(BASE)


def test_the_digest_follows_what_is_drawn():
    digests = {THREE.digest(), THREE.stage(2).digest(), THREE.without("one").digest(), memory().digest()}
    assert len(digests) == 4
    assert memory(learned("one", {0: 1})).digest() == memory(learned("one", {0: 1})).digest()


# --- concepts that add along directions, and their strengths


def added(name, seed):
    g = torch.Generator().manual_seed(seed)
    answers, down = torch.randn(5, 2, generator=g).half(), torch.randn(2, 4, generator=g)
    change = DirectionsChange(LAYOUT, answers, down, torch.ones(2))
    return learned(name, {}, method="directions", change=change)


def product(concept, name):
    up, down = concept.change.added(name)
    return up @ down


def test_concepts_that_add_are_summed_in_full_precision():
    one, two = added("one", 1), added("two", 2)
    for name, laid in memory(one, two).laid().items():
        assert laid.dense is None
        torch.testing.assert_close(laid.up @ laid.down, product(one, name) + product(two, name))
    assert torch.equal(memory(one, two).without("one").changes()["a.to_k"], memory(two).changes()["a.to_k"])


def test_both_kinds_may_follow_each_other():
    neurons, first, last = learned("n", {0: 1, 13: 3}), added("first", 1), added("last", 2)
    stages = memory(first, neurons, last)
    expected = stages.concepts[1].change.lay("a.to_k", product(first, "a.to_k").half())
    torch.testing.assert_close(
        stages.changes()["a.to_k"], (expected.float() + product(last, "a.to_k")).half(), atol=2e-3, rtol=1e-3
    )
    assert stages.stage(2).changes()["a.to_k"][0, 0] == 1, "what takes the place of something is on top"


def test_each_concept_has_its_own_strength():
    one, two = added("one", 1), added("two", 2)
    both = memory(one, two)
    laid = both.laid(both.strengths("<one> 0.5"))["a.to_v"]
    torch.testing.assert_close(laid.up @ laid.down, 0.5 * product(one, "a.to_v") + product(two, "a.to_v"))
    off = both.laid({"<two>": 0.0})["a.to_v"]
    torch.testing.assert_close(off.up @ off.down, product(one, "a.to_v"))
    half = THREE.laid({"<two>": 0.5})["a.to_k"].summed().reshape(-1)
    assert half[5] == 11 and half[0] == 1, "between what the entry was, 2, and what the concept makes it, 20"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", {}),
        ("<one> 0.5", {"<one>": 0.5}),
        ("one: 0.5,\n THREE=-1", {"<one>": 0.5, "<three>": -1.0}),
        ("two .25", {"<two>": 0.25}),
    ],
)
def test_strengths_are_read(text, expected):
    assert THREE.strengths(text) == expected


@pytest.mark.parametrize(
    "text, message",
    [
        ("one", "'one' is no strength of a concept.*such as '<my-dog> 0.8'"),
        ("one 3", "number from -2 to 2"),
        ("one nan", "no strength"),
        ("four 1", "No concept 'four'.*one, two, three"),
        ("one 1, <one> 0.5", "The strength of <one> is given twice"),
    ],
)
def test_strengths_that_cannot_be_are_told(text, message):
    with pytest.raises(ValueError, match=message):
        THREE.strengths(text)
