"""Forget, merge and learn further, in the real host."""

import re

import pytest
import torch


@pytest.fixture(scope="module")
def learn(run, models, train):
    """Learns by directions, of few prompts."""

    def call(concept, memory=None, **inputs):
        earlier = {} if memory is None else {"memory": memory}
        plan = run(
            "SelectConceptNeurons",
            **models,
            concept=concept,
            **earlier,
            what_may_move="directions",
            general_prompts=16,
        )[0]
        return train(concept, plan, **earlier, least_gain=0.0, **inputs)[0]

    return call


@pytest.fixture(scope="module")
def dog_alone(learn, dog):
    return learn(dog)


@pytest.fixture(scope="module")
def dog_and_mug(learn, dog_alone, mug):
    return learn(mug, dog_alone)


@pytest.fixture(scope="module")
def mug_alone(learn, mug):
    return learn(mug)


def test_forgetting_tells_what_it_does_to_everything_else(run, models, dog_and_mug, few_prompts, untouched):
    rest, text = run("ForgetConcept", memory=dog_and_mug, concept="<my-dog>", **models)
    assert rest.names() == ["my mug"] and dog_and_mug.names() == ["my dog", "my mug"]
    assert "gone without a rest" in text
    for group in ("general prompts", "`<my-mug>`"):
        found = re.search(rf"without it keys and values of {group} move by ([\d.]+)%", text)
        assert found and float(found[1]) < 100, text


def test_forgetting_needs_no_model(run, both):
    rest, text = run("ForgetConcept", memory=both, concept="my dog")
    assert rest.names() == ["my mug"] and "were its own" in text and "keys and values" not in text
    with pytest.raises(ValueError, match="No concept 'my cat'"):
        run("ForgetConcept", memory=both, concept="my cat")


def test_half_of_a_pair_is_refused(run, models, both):
    with pytest.raises(ValueError, match="Only one of model and clip"):
        run("ForgetConcept", memory=both, concept="my dog", model=models["model"])


def test_two_memories_become_one(run, models, dog_alone, mug_alone, few_prompts, untouched):
    both, text = run("MergeMemories", **models, first=dog_alone, second=mug_alone)
    assert both.names() == ["my dog", "my mug"]
    for line in (
        "`<my-dog>` moves keys and values of `<my-mug>` by",
        "`<my-mug>` moves keys and values of `<my-dog>`",
    ):
        assert line in text
    drawn = [run("ApplyPersonalizedUNet", **models, memory=m)[0] for m in (dog_alone, mug_alone, both)]
    keys = drawn[2].patches.keys()
    assert keys == drawn[0].patches.keys() | drawn[1].patches.keys()


def test_a_name_that_both_have_is_refused_before_any_work(run, models, dog_alone, both):
    with pytest.raises(ValueError, match="Both memories have a concept 'my dog'"):
        run("MergeMemories", **models, first=dog_alone, second=both)


def refined(run, models, random_model, memory, concept, **inputs):
    return run(
        "RefineConcept",
        **models,
        vae=random_model.vae,
        memory=memory,
        concept=concept,
        **{"steps": 3, "rate": 1.0, **inputs},
    )


def test_a_concept_is_learned_further_and_others_stay(run, models, random_model, dog_and_mug, dog, untouched):
    after, curve, text = refined(run, models, random_model, dog_and_mug, dog)
    assert after.names() == ["my mug", "my dog"] and curve.ndim == 4
    before = dog_and_mug.concept("my dog")
    now = after.concept("my dog")
    assert len(now.losses["diffusion"]) == len(before.losses["diffusion"]) + 3
    assert after.concept("my mug").digest() == dog_and_mug.concept("my mug").digest()
    assert not torch.equal(now.token_vectors["clip_l"], before.token_vectors["clip_l"])
    assert now.change.answers.shape[1] > before.change.answers.shape[1]
    assert "was learned further" in text
    again = refined(run, models, random_model, dog_and_mug, dog)
    assert again[0].digest() == after.digest() and "finished before" in again[2]


def test_by_neurons_too(run, models, random_model, both, dog, untouched):
    after = refined(run, models, random_model, both, dog)[0]
    assert after.names() == ["my mug", "my dog"]
    assert after.without("my dog").concepts[0].digest() == both.concept("my mug").digest()


def test_what_is_not_there_cannot_be_learned_further(run, models, random_model, dog_alone, mug):
    with pytest.raises(ValueError, match=r"these pictures are of <my-mug>"):
        refined(run, models, random_model, dog_alone, mug)


def test_one_as_it_was_learned_before_is_not_saved_over_unasked(pack, host_base, run, dog_and_mug):
    """Told before training: a queue's other nodes are looked at."""
    import sys

    queue = sys.modules[f"{pack.__name__}.cns_core.host.queue"]
    run("SaveConceptMemory", memory=dog_and_mug, filename="to_refine", overwrite=True)
    graph = {
        "1": {"class_type": "LoadConceptMemory", "inputs": {"file": "to_refine.safetensors"}},
        "2": {"class_type": "LoadConceptImages", "inputs": {"name": "my dog", "token": ""}},
        "3": {
            "class_type": "RefineConcept",
            "inputs": {"memory": ["1", 0], "concept": ["2", 0], "steps": 77},
        },
        "4": {
            "class_type": "SaveConceptMemory",
            "inputs": {"memory": ["3", 0], "filename": "to_refine", "overwrite": False},
        },
    }
    with pytest.raises(
        ValueError, match=r"my dog would be another one of the same name \(steps 4 there, 77 here\)"
    ):
        queue.check_after(graph, "3")
    graph["4"]["inputs"]["overwrite"] = True
    queue.check_after(graph, "3")
