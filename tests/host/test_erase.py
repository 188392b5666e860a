"""EraseConcept in the real host: what it does to weights, on top of and below learned concepts, and taking it
back.
"""

import json

import pytest
import torch
from safetensors import safe_open


@pytest.fixture(scope="module")
def erase(run, models):
    """Erases, of few prompts."""

    def call(words="leopard", **inputs):
        return run("EraseConcept", **models, words=words, **{"general_prompts": 24, **inputs})

    return call


@pytest.fixture(scope="module")
def erased(erase):
    """A memory with the erasure alone, and what is told of it."""
    return erase(instead="cat", keep="cheetah\na lion at noon")


@pytest.fixture(scope="module")
def on_top(erase, dog_memory):
    """Erased after a concept was learned."""
    return erase(memory=dog_memory, keep="cheetah")[0]


def keys_and_values(comfy, model, clip, memory, prompt):
    """Of one prompt, by projection `(tokens, out)`, float64."""
    comfy.model_management.load_models_gpu([model])
    with torch.no_grad():
        features = clip.encode_from_tokens(clip.tokenize(prompt))[0].double()
    unet = model.model.diffusion_model
    return {n: features @ unet.get_submodule(n).weight.detach().double().T for n in memory.layout.names}


def apart(first, second):
    """Root mean square of what two differ by."""
    return sum(float((first[n] - second[n]).square().sum()) for n in first) ** 0.5


def test_the_words_are_led_elsewhere_and_the_rest_stays(comfy, run, models, erased, untouched):
    memory, text = erased
    model, clip = run("ApplyPersonalizedUNet", **models, memory=memory)

    def before_and_after(prompt):
        after = keys_and_values(comfy, model, clip, memory, prompt)
        return keys_and_values(comfy, models["model"], models["clip"], memory, prompt), after

    (old, new), (goal, _) = before_and_after("a photo of leopard"), before_and_after("a photo of cat")
    assert apart(new, goal) < 0.8 * apart(old, goal)
    for prompt in ("a photo of cheetah", "a lion at noon", "a photo of cat"):
        kept, now = before_and_after(prompt)
        assert apart(kept, now) < 0.5 * apart(old, new), prompt
    assert "keys and values of leopard went" in text and "of the way to those of cat" in text
    assert "`without leopard` moves keys and values of general prompts by" in text
    assert "1. without leopard (erasure)" in text


def test_a_higher_weight_goes_farther(erase):
    ways = []
    for weight in (0.01, 1.0, 100.0):
        told = erase(erase_weight=weight)[1].splitlines()[0]
        ways.append(float(told.partition("went ")[2].partition("%")[0]))
    assert ways == sorted(ways) and ways[0] < ways[2]


def test_learned_concepts_are_among_what_is_kept(comfy, run, models, erase, on_top, dog_memory):
    assert on_top.names() == [*dog_memory.names(), "without leopard"]
    _, told = erase(memory=dog_memory)
    token = dog_memory.concepts[0].token
    assert f"moves keys and values of `{token}` by" in told
    for name, change in on_top.stage(len(dog_memory)).changes().items():
        assert torch.equal(change, dog_memory.changes()[name])


def test_taking_it_back_leaves_no_rest(run, models, on_top, dog_memory):
    rest, text = run("ForgetConcept", memory=on_top, concept="without leopard", **models)
    assert rest.digest() == dog_memory.digest()
    assert "without leopard is undone" in text and "gone without a rest" in text
    assert "without it keys and values of general prompts move by" in text


def test_stages_and_strengths(comfy, run, models, on_top, dog_memory, untouched):
    full, none, as_of = (
        run("ApplyPersonalizedUNet", **models, memory=memory, **how)
        for memory, how in (
            (on_top, {}),
            (on_top, {"strengths": "without leopard 0"}),
            (on_top, {"as_of": dog_memory.names()[-1]}),
        )
    )
    found = [keys_and_values(comfy, *pair, on_top, "a photo of leopard") for pair in (full, none, as_of)]
    keys_and_values(comfy, *models.values(), on_top, "a photo of leopard")  # the patches are off again
    assert apart(found[1], found[2]) == 0 and apart(found[0], found[1]) > 0


def test_it_draws(run, models, random_model, erased):
    from ComfyUI_CNS.cns_core.host.draw import Sampling, draw
    from ComfyUI_CNS.cns_core.host.types import Loaded

    def picture(model, clip):
        loaded = Loaded(model, clip, random_model.vae)
        with torch.inference_mode():
            return draw(loaded, ["a photo of leopard"], (64, 64), [0], Sampling(steps=2))

    after = picture(*run("ApplyPersonalizedUNet", **models, memory=erased[0]))
    assert torch.isfinite(after).all()
    assert not torch.equal(after, picture(models["model"], models["clip"]))


def test_a_concept_is_learned_after_it(train, run, models, on_top, mug):
    plan, _, text = run(
        "SelectConceptNeurons",
        **models,
        concept=mug,
        memory=on_top,
        what_may_move="directions",
        general_prompts=24,
    )
    assert "`without leopard` hears" in text
    memory = train(mug, plan, memory=on_top, direction_lr=0.1, least_gain=0.0, prior="none")[0]
    assert memory.names() == [*on_top.names(), "my mug"]
    gone = run("ForgetConcept", memory=memory, concept="without leopard")[0]
    assert gone.names() == [name for name in memory.names() if name != "without leopard"]


def test_it_is_saved_listed_and_loaded(run, on_top):
    from ComfyUI_CNS.cns_core.host import library

    run("SaveConceptMemory", memory=on_top, filename="erased")
    assert run("LoadConceptMemory", file="erased.safetensors")[0].digest() == on_top.digest()
    entry = next(e for e in library.listed() if e["file"] == "erased.safetensors")
    assert [c["token"] for c in entry["concepts"]][-1] == ""
    assert entry["concepts"][-1]["name"] == "without leopard"
    told = library.concept("erased.safetensors", len(on_top) - 1)
    assert told["settings"]["erase"]["words"] == ["leopard"] and json.dumps(told)


@pytest.mark.parametrize("form", ["ComfyUI", "diffusers"])
def test_it_is_exported_as_a_lora_without_an_embedding(run, erased, on_top, form, host_base):
    alone = run("ExportConceptMemory", memory=erased[0], filename=f"gone {form}", form=form)[0]
    assert "without leopard: the LoRA does it by itself" in alone and "embedding:" not in alone
    assert alone.count(".safetensors (") == 1
    both = run("ExportConceptMemory", memory=on_top, filename=f"both {form}", form=form)[0]
    assert both.count(".safetensors (") == 1 + len(on_top.with_tokens())
    only = run(
        "ExportConceptMemory", memory=on_top, filename=f"only {form}", form=form, concepts="without leopard"
    )[0]
    assert only.count(".safetensors (") == 1
    if form == "ComfyUI":
        with safe_open(host_base / "models" / "loras" / "only ComfyUI.safetensors", "pt") as file:
            up, down = (
                next(file.get_tensor(k) for k in file.keys() if k.endswith(f"{part}.weight"))  # noqa: SIM118
                for part in ("lora_up", "lora_down")
            )
            assert up.shape[1] == len(down) > 0


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"words": "  \n"}, "no words to erase"),
        ({"words": "(leopard:1.3)"}, "'\\(leopard:1.3\\)' has a weight"),
        ({"words": "leopard", "instead": "a\nb"}, "1 words are to be erased, but 2"),
        ({"words": "leopard", "keep": "very " * 90}, "at most 75 fit"),
    ],
)
def test_bad_words_are_told(erase, inputs, message):
    with pytest.raises(ValueError, match=message):
        erase(**inputs)


def test_the_same_words_are_not_erased_twice(erase, erased):
    with pytest.raises(ValueError, match="named 'without leopard' has been learned already"):
        erase(memory=erased[0])


def test_the_model_that_a_memory_was_applied_to_is_refused(run, models, erased):
    model, clip = run("ApplyPersonalizedUNet", **models, memory=erased[0])
    with pytest.raises(ValueError, match="already carries a concept memory"):
        run("EraseConcept", model=model, clip=clip, words="lion", general_prompts=24)
