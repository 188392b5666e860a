"""A memory is changed after learning: forget, merge, learn further, and what each does to the others."""

import math
from dataclasses import replace

import pytest
import torch

from cns_core.concept import Concept, TrainingImage
from cns_core.forget import forget
from cns_core.identity import ModelIdentity
from cns_core.interference import GENERAL, interference
from cns_core.memory import ConceptMemory, LearnedConcept
from cns_core.merge import merged
from cns_core.methods.cns.change import CnsChange
from cns_core.methods.cns.masks import NeuronMask
from cns_core.methods.directions.change import DirectionsChange
from cns_core.projections import ProjectionLayout
from cns_core.refine import to_refine

LAYOUT = ProjectionLayout(("a.to_k", "a.to_v"), ((3, 4), (2, 4)))
BASE = ModelIdentity("SD1", "ab" * 32)


def concept(name, change, method):
    return LearnedConcept(
        name=name,
        token=f"<{name}>",
        class_word="dog",
        kind="subject",
        captions=(f"a photo of <{name}>",),
        method=method,
        change=change,
        token_vectors={"clip_l": torch.arange(4.0)[None]},
        settings={},
        losses={},
        learned_at="",
    )


def neurons(name, entries):
    flat = torch.zeros(LAYOUT.total, dtype=torch.bool)
    flat[list(entries)] = True
    mask = NeuronMask.from_dense(LAYOUT, {n: flat[w].reshape(s) for n, s, w in LAYOUT.slices()})
    values = torch.tensor([entries[i] for i in sorted(entries)], dtype=torch.float16)
    return concept(name, CnsChange(mask, values), "cns")


def along(name, direction, answers=(1.0, 0, 0, 0, 2.0)):
    change = DirectionsChange(
        LAYOUT, torch.tensor([answers]).T.half(), torch.tensor([direction]), torch.tensor([50.0])
    )
    return concept(name, change, "directions")


def memory(*concepts, base=BASE):
    return ConceptMemory(base, LAYOUT, concepts)


def dense(of):
    flat = torch.cat([change.reshape(-1) for change in of.changes().values()])
    return {i: v for i, v in enumerate(flat.tolist()) if v}


# --- forgetting


def test_what_was_added_goes_without_a_rest():
    one, two = along("one", [1.0, 0, 0, 0]), along("two", [0, 1.0, 0, 0])
    done = forget(memory(one, two), "<one>")
    assert done.exact and done.memory.names() == ["two"] and dense(done.memory) == dense(memory(two))
    assert "gone without a rest: 1 direction" in done.told()[1]


def test_of_what_took_the_place_of_entries_it_is_told_what_becomes_of_them():
    stream = memory(
        neurons("one", {0: 1, 5: 2}), neurons("two", {5: 20, 7: 30, 8: 4}), neurons("three", {7: -1})
    )
    done = forget(stream, "two")
    assert (done.exact, done.own, done.earlier, done.later) == (False, 1, 1, 1)
    assert dense(done.memory) == {0: 1, 5: 2, 7: -1}
    assert done.told()[1].startswith("of its 3 entries 1 were its own")


def test_directions_beneath_neurons_are_not_said_to_go_without_a_rest():
    done = forget(memory(along("one", [1.0, 0, 0, 0]), neurons("two", {7: 1})), "one")
    assert not done.exact and done.later == 1


def test_only_what_is_there_can_be_forgotten():
    with pytest.raises(ValueError, match="No concept 'cat' in this memory; it holds: one"):
        forget(memory(neurons("one", {0: 1})), "cat")


# --- interference


def test_interference_is_the_share_by_which_keys_and_values_move():
    stream = memory(along("one", [1.0, 0, 0, 0]), along("two", [0, 1.0, 0, 0]))
    moments = {
        GENERAL: torch.diag(torch.tensor([1.0, 0, 3, 0])),
        "<two>": torch.diag(torch.tensor([0.0, 4, 0, 0])),
    }
    found = interference(stream, ["<one>"], moments, gram=2 * torch.eye(4))
    # D^T D is (1 + 4) in the first place alone; general prompts are untouched 2 (1 + 3).
    assert math.isclose(found.moves["<one>", GENERAL], math.sqrt(5 / 8))
    assert found.moves["<one>", "<two>"] == 0
    assert found.told(["<one>"], ["<one>", "<two>"]) == ["`<one>` moves keys and values of `<two>` by 0.00%"]
    assert found.told(["<one>"], [GENERAL])[0].endswith("which is to be seen")


def test_both_ways_to_compute_it_agree():
    """An entry that nothing else moves makes the one of many concepts take the long way."""
    one, two = along("one", [1.0, 2, 0, 0]), along("two", [0, 1.0, 0, 3])
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(6, 4, generator=g, dtype=torch.float64)
    moments, gram = {GENERAL: rows.T @ rows}, torch.eye(4, dtype=torch.float64)
    short = interference(memory(one, two), ["<one>"], moments, gram)
    long = interference(memory(neurons("n", {3: 1}), one, two), ["<one>"], moments, gram)
    assert math.isclose(short.moves["<one>", GENERAL], long.moves["<one>", GENERAL], rel_tol=1e-3)


# --- merging


def test_the_second_ones_concepts_come_after_the_firsts():
    one, two, three = neurons("one", {0: 1}), neurons("two", {0: 2, 5: 3}), neurons("three", {5: 4})
    both = merged(memory(one), memory(two, three))
    assert both.names() == ["one", "two", "three"] and dense(both) == {0: 2, 5: 4}


def test_a_concept_that_both_hold_is_taken_once():
    shared = neurons("one", {0: 1})
    again = neurons("one", {0: 1})
    assert merged(
        memory(shared, neurons("two", {1: 1})), memory(again, neurons("three", {2: 1}))
    ).names() == [
        "one",
        "two",
        "three",
    ]


def test_two_concepts_of_one_name_are_refused():
    with pytest.raises(ValueError, match="Both memories have a concept 'one'"):
        merged(memory(neurons("one", {0: 1})), memory(neurons("one", {0: 2})))
    other_name = replace(neurons("two", {0: 2}), token="<one>")
    with pytest.raises(ValueError, match="learned otherwise"):
        merged(memory(neurons("one", {0: 1})), memory(other_name))


def test_memories_of_two_models_are_refused():
    other = memory(neurons("two", {0: 1}), base=ModelIdentity("SD1", "cd" * 32))
    with pytest.raises(ValueError, match="Only memories of one model"):
        merged(memory(neurons("one", {0: 1})), other)


# --- learning further


def pictures(name, **changes):
    image = TrainingImage(torch.zeros(64, 64, 3), (f"a photo of <{name}>",), None, "a.png")
    return Concept(
        **{
            "name": name,
            "token": f"<{name}>",
            "class_word": "dog",
            "kind": "subject",
            "images": (image,),
            **changes,
        }
    )


def test_only_a_concept_of_the_memory_can_be_learned_further():
    stream = memory(neurons("one", {0: 1}))
    assert to_refine(stream, pictures("one")).concept.name == "one"
    with pytest.raises(ValueError, match=r"holds <one> \(one\), but these pictures are of <two>"):
        to_refine(stream, pictures("two"))
    with pytest.raises(ValueError, match="class_word 'dog', but these pictures have 'cat'"):
        to_refine(stream, pictures("one", class_word="cat"))


def test_entries_that_later_concepts_determine_stay_theirs():
    stream = memory(neurons("one", {0: 1, 5: 2, 6: 3}), neurons("two", {5: 20}))
    after = to_refine(stream, pictures("one")).result(neurons("one", {6: 7, 9: 8}))
    assert after.names() == ["two", "one"] and dense(after) == {0: 1, 5: 20, 6: 7, 9: 8}
    assert dense(after.without("one")) == {5: 20}
