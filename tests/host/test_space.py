"""SampleConcept and EditConcept in the real host: concepts out of a space of several learned alone."""

import pytest
import torch

LORA = {"method": "lora", "weights": "keys and values", "rank": 2, "weight_lr": 0.01}


@pytest.fixture(scope="module")
def learn(run, models, random_model, photos):
    def call(name, seed=0, folder="dog", memory=None):
        concept = run("LoadConceptImages", name=name, class_word="dog", folder=folder, resolution=64)[0]
        plan = run("ChooseMethod", **models, concept=concept, memory=memory, **LORA)[0]
        given = {**models, "vae": random_model.vae, "concept": concept, "neurons": plan, "memory": memory}
        how = {"steps": 2, "batch_size": 1, "prior": "none", "token_lr": 0.01, "seed": seed}
        return run("ContinualTrain", **given, **how)[0]

    return call


@pytest.fixture(scope="module")
def alone(learn):
    """Four memories, of one concept each."""
    return [learn(f"face {i}", i, "dog" if i % 2 else "mug") for i in range(1, 5)]


@pytest.fixture(scope="module")
def files(run, alone):
    """The same as files."""
    for number, memory in enumerate(alone, 1):
        run("SaveConceptMemory", memory=memory, filename=f"space/face_{number}", overwrite=True)
    return "space/face_*"


def test_a_concept_is_drawn_out_of_files_and_used_like_any_other(run, models, files, untouched):
    made, text = run("SampleConcept", files=files, name="new face", seed=5, rank=4)
    assert made.names() == ["new face"] and made.token_vectors().keys() == {"<new-face>"}
    assert "4 concepts by lora; 3 of 3 components hold 100%" in text and "fewer than 40" in text
    patched, clip = run("ApplyPersonalizedUNet", **models, memory=made)[:2]
    assert len(patched.patches) == len(made.layout.names)
    assert clip.tokenize("<new-face>")
    run("SaveConceptMemory", memory=made, filename="sampled", overwrite=True)
    again = run("LoadConceptMemory", file="sampled.safetensors")[0]
    assert again.digest() == made.digest()
    assert run("SampleConcept", files=files, name="new face", seed=5, rank=4)[0].digest() == made.digest()
    rest, told = run("ForgetConcept", memory=again, concept="new face")
    assert len(rest) == 0 and "gone without a rest" in told


def test_a_concept_is_moved_by_a_slider(run, models, alone, files):
    lists = {"more_like": "<face-1>, <face-3>", "less_like": "face 2"}
    still = run("EditConcept", files=files, concept="<face-2>", strength=0.0, **lists)[0]
    assert still.digest() == alone[1].digest()
    moved, text = run("EditConcept", files=files, concept="<face-2>", strength=0.5, rank=64, **lists)
    before = [memory.changes() for memory in alone]
    for name, change in moved.changes().items():
        one, two, three = (before[i][name].float() for i in (0, 1, 2))
        expected = two + 0.5 * ((one + three) / 2 - two)
        assert (change.float() - expected).norm() < 0.01 * expected.norm()
    vectors = [memory.concepts[0].token_vectors for memory in alone]
    for encoder, found in moved.concepts[0].token_vectors.items():
        one, two, three = (vectors[i][encoder] for i in (0, 1, 2))
        torch.testing.assert_close(found, two + 0.5 * ((one + three) / 2 - two))
    assert "strength 1 is" in text and moved.token_vectors().keys() == {"<face-2>"}
    sampled = run("SampleConcept", files=files, name="new face")[0]
    given = {"other": sampled, "concept": "new face", "name": "newer face"}
    again = run("EditConcept", files=files, **given, **lists)[0]
    assert again.names() == ["newer face"]
    merged = run("MergeMemories", **models, first=sampled, second=again)[0]
    assert merged.names() == ["new face", "newer face"]


def test_a_memory_of_several_is_a_space_too(run, models, alone):
    whole = alone[0]
    for memory in alone[1:]:
        whole = run("MergeMemories", **models, first=whole, second=memory)[0]
    assert run("SampleConcept", memory=whole, files="", name="new")[0].names() == ["new"]


def test_what_makes_no_space_is_refused(run, models, random_model, learn, alone, files, both):
    with pytest.raises(ValueError, match="No memory is connected and no file is named"):
        run("SampleConcept", files=" \n", name="new")
    with pytest.raises(ValueError, match="No file in models/concept_memory/ is named 'moon/"):
        run("SampleConcept", files="moon/*", name="new")
    with pytest.raises(ValueError, match="There are 1 concepts; a space needs 3"):
        run("SampleConcept", files="space/face_1", name="new")
    stacked = learn("face 5", memory=alone[0])
    assert stacked.concepts[1].settings["after"] == {"concepts": 1}
    with pytest.raises(ValueError, match="'face 5' was learned on top of 1 other"):
        run("SampleConcept", files=files, memory=stacked, name="new")
    with pytest.raises(ValueError, match=r"more than one method: lora \(4\), cns \(2\)"):
        run("SampleConcept", files=files, memory=both, name="new")
    sampled = run("SampleConcept", files=files, name="face 1")[0]
    pictures = run("LoadConceptImages", name="face 1", class_word="dog", folder="dog", resolution=64)[0]
    with pytest.raises(ValueError, match="was made out of a space of concepts, not learned"):
        given = {**models, "vae": random_model.vae, "memory": sampled, "concept": pictures}
        run("RefineConcept", **given, steps=2)


def test_a_file_that_has_changed_is_seen(run, nodes, alone, files):
    seen = nodes["SampleConcept"].fingerprint_inputs
    before = seen(files=files)
    assert before == seen(files=files) and seen(files="moon/*") == "" and seen(files=None) == ""
    run("SaveConceptMemory", memory=alone[0], filename="space/face_9", overwrite=True)
    assert seen(files=files) != before


def test_it_can_be_stopped(run, files, comfy):
    import comfy.model_management as management

    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        run("SampleConcept", files=files, name="new")
