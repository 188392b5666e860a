"""LocateConcept in the real host: where a concept lives, on CPU, with the models left as they were."""

import re

import pytest
import torch


@pytest.fixture(scope="module")
def learned(run, models, train, dog):
    """Learned well enough that what it left helps."""
    plan = run("ChooseMethod", **models, concept=dog, method="all K/V", weight_lr=1e-3)[0]
    return train(dog, plan, steps=12, prior="none")[0]


@pytest.fixture
def locate(run, models, random_model):
    def call(memory, concept, **inputs):
        settings = {"samples": 8, **inputs}
        return run(
            "LocateConcept", **models, vae=random_model.vae, memory=memory, concept=concept, **settings
        )

    return call


def rows_of(text):
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {line[0]: line[1:] for line in lines[2:]}


def test_each_layer_has_its_share(locate, learned, dog, untouched):
    picture, text = locate(learned, dog)
    rows = rows_of(text)
    layers = len(learned.layout.names) // 2
    assert len(rows) == layers and "middle" in rows
    assert all(re.fullmatch(r"middle|(down|up) \d\.\d", label) for label in rows)
    assert all(re.fullmatch(r"-?\d+ %", cell) for row in rows.values() for cell in row)
    assert picture.shape[0] == 1 and picture.shape[3] == 3 and 0 <= float(picture.min()) < 0.5
    assert "with the token alone" in text and "one standard error" in text


def test_keys_and_values_apart(locate, learned, dog):
    whole, apart = (rows_of(locate(learned, dog, keys_and_values=on)[1]) for on in (False, True))
    assert set(apart) == {*whole, "everywhere"}
    assert {label: row[:2] for label, row in apart.items() if label in whole} == whole
    assert apart["everywhere"][:2] == ["100 %", "100 %"] and len(apart["middle"]) == 6


def test_it_is_the_error_of_a_memory_that_is_cut(pack, locate, learned, dog, random_model, float32):
    """The same by another way: the host's own patches of a memory that is restricted, drawn with."""
    from ComfyUI_CNS.cns_core.host.backend import HostBackend, training_mode
    from ComfyUI_CNS.cns_core.host.latents import encode_concept
    from ComfyUI_CNS.cns_core.host.locate import locate as measured
    from ComfyUI_CNS.cns_core.host.personalize import personalize
    from ComfyUI_CNS.cns_core.host.types import Loaded
    from ComfyUI_CNS.cns_core.localisation import LocateSettings, restricted
    from ComfyUI_CNS.cns_core.noised import NoisedPictures
    from ComfyUI_CNS.cns_core.places import places_of

    loaded = Loaded(random_model.model, random_model.clip, random_model.vae)

    def quiet(done, total):
        pass

    with torch.inference_mode():
        found = measured(loaded, learned, dog, LocateSettings(samples=8), quiet, float32)
        images = encode_concept(loaded, dog, quiet)
    vectors = {n: torch.zeros_like(v) for n, v in learned.concepts[0].token_vectors.items()}

    def error(memory):
        drawn = personalize(random_model.model, random_model.clip, memory)
        with training_mode(), torch.no_grad():
            known = memory.token_vectors()
            backend = HostBackend(drawn.model, random_model.clip, "<none>", vectors, known, float32)
            with backend.weights_patched({}):
                return float(torch.cat(list(NoisedPictures(backend, images, 8, 0, False).errors())).mean())

    assert found.whole == pytest.approx(error(learned), rel=1e-4)
    assert found.token_alone == pytest.approx(error(restricted(learned, "<my-dog>", ())), rel=1e-4)
    place = next(p for p in places_of(learned.layout, learned.layout) if p.label == "middle")
    gain = found.token_alone - found.whole
    only = (found.token_alone - error(restricted(learned, "<my-dog>", place.names))) / gain
    assert found.shares["middle"]["all"].only == pytest.approx(only, abs=1e-4 * found.whole / gain)


def test_other_concepts_stay_in_place(run, models, train, locate, learned, mug, untouched):
    """Of the second of two the token alone is measured with the first one's weights, so all is found."""
    plan = run("ChooseMethod", **models, concept=mug, memory=learned, method="all K/V", weight_lr=1e-3)[0]
    memory = train(mug, plan, memory=learned, steps=12, prior="none")[0]
    rows = rows_of(locate(memory, mug, keys_and_values=True)[1])
    assert rows["everywhere"][:2] == ["100 %", "100 %"] and memory.names() == ["my dog", "my mug"]


def test_cancel_leaves_everything_as_it_was(comfy, locate, learned, dog, hook, untouched):
    import comfy.model_management as management

    seen = []

    def told(done, total, picture, **more):
        seen.append((done, total))
        if total > 10 and done == 5:
            management.interrupt_current_processing()

    hook(told)
    with pytest.raises(management.InterruptProcessingException):
        locate(learned, dog)
    assert seen[-1][0] == 5


def test_a_concept_that_is_not_in_the_memory_is_told(locate, learned, mug):
    with pytest.raises(ValueError, match=r"holds <my-dog> \(my dog\), but these pictures are of <my-mug>"):
        locate(learned, mug)


def test_a_model_that_carries_the_memory_is_refused(run, models, random_model, learned, dog):
    model, clip = run("ApplyPersonalizedUNet", **models, memory=learned)
    common = {"vae": random_model.vae, "memory": learned, "concept": dog}
    with pytest.raises(ValueError, match="already carries a concept memory"):
        run("LocateConcept", model=model, clip=models["clip"], **common)
    with pytest.raises(ValueError, match="already understands <my-dog>"):
        run("LocateConcept", model=models["model"], clip=clip, **common)


def test_what_is_in_the_token_alone_is_told(run, models, train, locate, dog):
    plan = run("ChooseMethod", **models, concept=dog, method="token alone")[0]
    memory = train(dog, plan, prior="none")[0]
    with pytest.raises(ValueError, match="nothing of <my-dog> to be found in the U-Net"):
        locate(memory, dog)


def test_a_method_that_moves_more_has_its_layers_too(run, models, train, locate, dog):
    plan = run("ChooseMethod", **models, concept=dog, method="dreambooth", weight_lr=1e-3)[0]
    memory = train(dog, plan, prior="none", steps=12)[0]
    rows = rows_of(locate(memory, dog)[1])
    assert {"middle", "elsewhere"} <= set(rows)
