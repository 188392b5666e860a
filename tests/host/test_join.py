"""MergeConcepts in the real host: memories learned apart become one."""

import re
import sys

import pytest
import torch

RULES = ("gradient fusion", "closed form", "ziplora", "sum")


pytestmark = pytest.mark.usefixtures("few_prompts")


@pytest.fixture(scope="module")
def mug_alone(run, models, random_model, mug):
    """By LoRA, beside keys and values alone."""
    chosen = {"method": "lora", "weights": "keys and values", "rank": 2, "weight_lr": 0.01}
    plan = run("ChooseMethod", **models, concept=mug, **chosen)[0]
    given = {**models, "vae": random_model.vae, "concept": mug, "neurons": plan}
    return run("ContinualTrain", **given, steps=4, batch_size=1, prior="none", token_lr=0.01)[0]


@pytest.fixture(scope="module")
def join(run, models, dog_memory, mug_alone):
    def call(rule, **inputs):
        return run("MergeConcepts", **models, memory_1=dog_memory, memory_2=mug_alone, rule=rule, **inputs)

    return call


def off(text, token):
    """What the text says is off of what a concept changes in its own captions."""
    found = re.search(rf"`{token}`: of what it changes .* ([\d.]+)% is off", text)
    assert found, text
    return float(found[1])


@pytest.mark.parametrize("rule", RULES)
def test_concepts_learned_apart_become_one_memory(run, models, join, rule, dog_memory, mug_alone, untouched):
    joined, text = join(rule)
    assert joined.names() == ["my dog", "my mug"]
    assert joined.token_vectors().keys() == {"<my-dog>", "<my-mug>"}
    assert "keys and values of general prompts move by" in text
    assert off(text, "<my-dog>") >= 0 and off(text, "<my-mug>") >= 0
    patched, clip = run("ApplyPersonalizedUNet", **models, memory=joined)[:2]
    assert len(patched.patches) == len(joined.layout.names)
    assert clip.tokenize("<my-dog> <my-mug>")
    run("SaveConceptMemory", memory=joined, filename="joined", overwrite=True)
    again = run("LoadConceptMemory", file="joined.safetensors")[0]
    assert again.digest() == joined.digest()
    rest, told = run("ForgetConcept", memory=joined, concept="<my-dog>", **models)
    assert "gone without a rest" in told and rest.names() == ["my mug"]


def test_exact_rules_keep_what_each_concept_does_in_the_prompts_that_they_read(
    pack, models, join, dog_memory, mug_alone
):
    """Read with the host's own CLIP, from the token to the end of the text."""
    core = f"{pack.__name__}.cns_core.host"
    text = sys.modules[f"{core}.text"]
    for rule, settings in (
        ("closed form", {}),
        ("gradient fusion", {"ridge": 1e-9}),
    ):
        joined = join(rule, captions="the token and a photo of it", padding=False, **settings)[0]
        clip = text.with_tokens(models["clip"], joined.token_vectors())
        for alone, token in ((dog_memory, "<my-dog>"), (mug_alone, "<my-mug>")):
            with torch.inference_mode():
                found = text.encode_prompts(clip, [f"a photo of {token}"], pooled=False)
            rows = found.cross[0, 4:6].cpu()  # after the start and "a photo of": the token, and the end
            assert int(found.is_word[0].sum()) == 4
            own, now = alone.laid(), joined.laid()
            for name in joined.layout.names:
                expected = rows @ own[name].in_full().T
                got = rows @ now[name].in_full().T
                assert (got - expected).norm() < 0.02 * expected.norm() + 1e-4, (rule, name)


def test_any_number_of_memories_but_for_ziplora(run, models, join, dog_memory, mug_alone):
    cat = run("ForgetConcept", memory=mug_alone, concept="my mug")[0]
    with pytest.raises(ValueError, match="Memory 3 holds no concept"):
        join("closed form", memory_3=cat)
    with pytest.raises(ValueError, match="3 memories, but ziplora joins 2"):
        join("ziplora", memory_8=mug_alone)


def test_what_clashes_is_refused_before_any_work(run, models, join, both, mug_alone, monkeypatch, pack):
    reader = sys.modules[f"{pack.__name__}.cns_core.host.join"].PromptReader
    monkeypatch.setattr(reader, "read", lambda self, prompts: pytest.fail("it has begun to read"))
    with pytest.raises(ValueError, match=r"Memory 2 holds 'my mug' .<my-mug>., and so does one before it"):
        run("MergeConcepts", **models, memory_1=both, memory_2=mug_alone, rule="sum")
    applied = run("ApplyPersonalizedUNet", **models, memory=mug_alone)[1]
    with pytest.raises(ValueError, match="already understands <my-mug>"):
        given = {"model": models["model"], "clip": applied, "memory_1": both.stage(1)}
        run("MergeConcepts", **given, memory_2=mug_alone, rule="sum")


def test_it_can_be_stopped(join, comfy):
    import comfy.model_management as management

    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        join("closed form")


def test_what_was_joined_is_learned_further_before(run, models, random_model, join, dog):
    joined = join("gradient fusion")[0]
    with pytest.raises(ValueError, match=r"<my-dog> was joined with others by gradient fusion.*join again"):
        run("RefineConcept", **models, vae=random_model.vae, memory=joined, concept=dog, steps=2)
