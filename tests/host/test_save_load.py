"""SaveConceptMemory and LoadConceptMemory: files that lose nothing and stay in their folder."""

import pytest
import torch


def test_save_and_load(run, nodes, both):
    (text,) = run("SaveConceptMemory", memory=both, filename="sub/mine")
    assert "mine.safetensors" in text and "<my-mug>" in text
    loaded, summary = run("LoadConceptMemory", file="sub/mine.safetensors")
    assert loaded.digest() == both.digest() and "<my-dog>" in summary
    first = nodes["LoadConceptMemory"].fingerprint_inputs(file="sub/mine.safetensors")
    run("SaveConceptMemory", memory=both.stage(1), filename="sub/mine", overwrite=True)
    assert nodes["LoadConceptMemory"].fingerprint_inputs(file="sub/mine.safetensors") != first


def test_a_file_that_is_gone_is_saved_again(nodes, run, both, host_base):
    save = nodes["SaveConceptMemory"]
    assert save.fingerprint_inputs(filename=None) != save.fingerprint_inputs(filename=None)  # wired
    assert save.fingerprint_inputs(filename="gone") != save.fingerprint_inputs(filename="gone")
    run("SaveConceptMemory", memory=both, filename="gone")
    stands = save.fingerprint_inputs(filename="gone")
    assert save.fingerprint_inputs(filename="gone") == stands
    run("SaveConceptMemory", memory=both.stage(1), filename="gone", overwrite=True)
    assert save.fingerprint_inputs(filename="gone") != stands
    (host_base / "models" / "concept_memory" / "gone.safetensors").unlink()
    assert save.fingerprint_inputs(filename="gone") != stands


def test_bad_file_names_are_refused_when_queued(nodes):
    said = nodes["SaveConceptMemory"].validate_inputs(filename="a:b")
    assert isinstance(said, str) and "'a:b' has ':'" in said
    assert nodes["SaveConceptMemory"].validate_inputs(filename="%year% my dog's") is True
    assert nodes["SaveConceptMemory"].validate_inputs(filename=None) is True  # from another node


def test_saving_never_loses_a_concept_unasked(run, both, dog_memory):
    run("SaveConceptMemory", memory=dog_memory, filename="growing")
    run("SaveConceptMemory", memory=both, filename="growing")  # the same and one more
    for less in (dog_memory, both.without("my dog")):
        with pytest.raises(
            ValueError,
            match=r"growing.safetensors already holds other concepts \(my dog, "
            r"my mug",
        ):
            run("SaveConceptMemory", memory=less, filename="growing")
    assert run("LoadConceptMemory", file="growing.safetensors")[0].digest() == both.digest()
    run("SaveConceptMemory", memory=dog_memory, filename="growing", overwrite=True)
    assert run("LoadConceptMemory", file="growing.safetensors")[0].digest() == dog_memory.digest()


def test_a_concept_trained_anew_replaces_its_former_self_when_it_may(
    run, train, dog, dog_neurons, dog_memory
):
    run("SaveConceptMemory", memory=dog_memory, filename="again")
    anew = train(dog, dog_neurons, seed=31, steps=1)[0]
    with pytest.raises(ValueError, match="my dog would be another one of the same name"):
        run("SaveConceptMemory", memory=anew, filename="again")
    assert run("LoadConceptMemory", file="again.safetensors")[0].digest() == dog_memory.digest()
    run("SaveConceptMemory", memory=anew, filename="again", overwrite=True)
    assert run("LoadConceptMemory", file="again.safetensors")[0].digest() == anew.digest()


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "", "con\x00trol", "a//b"])
def test_file_names_cannot_leave_the_folder(run, both, name):
    with pytest.raises(ValueError, match=r"no usable file name|outside"):
        run("SaveConceptMemory", memory=both, filename=name)


@pytest.mark.parametrize("name", ["x" * 300, "a\ud800", "a\x00b", "a\nb"])
def test_names_that_no_file_can_have_are_refused_everywhere(nodes, run, dog, name):
    picture = torch.zeros(1, 64, 64, 3)
    for node_id, inputs in (
        ("LoadConceptMemory", {"file": name}),
        ("LoadConceptImages", {"name": "my cat", "class_word": "cat", "folder": name}),
        ("CLIPScore", {"image": picture, "prompt": "a", "concept": dog, "clip_model": name}),
    ):
        with pytest.raises(ValueError, match=r"names nothing inside .*(U\+|255 bytes)"):
            run(node_id, **inputs)
    assert "names nothing inside" in nodes["LoadConceptMemory"].validate_inputs(file=name)


def test_unknown_memory_files(nodes, run):
    for name in ("nothing.safetensors", "../checkpoints/x.safetensors"):
        assert isinstance(nodes["LoadConceptMemory"].validate_inputs(file=name), str)
        with pytest.raises(ValueError):
            run("LoadConceptMemory", file=name)
