"""What is wired to a node but does not belong there: an error that names the input, never one from within."""

import math

import pytest
import torch

WRONG = (None, 7, -1, 1.5, math.nan, math.inf, True, "text", b"bytes", [], {}, object(), torch.zeros(3))


@pytest.fixture(scope="module")
def sound(models, random_model, dog, dog_neurons, dog_memory):
    """Inputs that each node takes."""
    picture = torch.zeros(1, 64, 64, 3)
    concept = {"name": "my cat", "class_word": "cat", "images": picture}
    return {
        "LoadConceptImages": concept,
        "CaptionConceptImages": {"folder": "dog"},
        "SelectConceptNeurons": {**models, "concept": dog, "calibration_prompts": 16},
        "ContinualTrain": {**models, "vae": random_model.vae, "concept": dog, "neurons": dog_neurons},
        "ApplyPersonalizedUNet": {**models, "memory": dog_memory},
        "SaveConceptMemory": {"memory": dog_memory, "filename": "values"},
        "LoadConceptMemory": {"file": "values.safetensors"},
        "CLIPScore": {"image": picture, "prompt": "a dog", "concept": dog},
        "ForgetConcept": {**models, "memory": dog_memory, "concept": "my dog"},
        "EraseConcept": {**models, "words": "leopard", "general_prompts": 8},
        "RefineConcept": {**models, "vae": random_model.vae, "memory": dog_memory, "concept": dog},
        "MergeMemories": {**models, "first": dog_memory, "second": dog_memory},
        "MergeConcepts": {**models, "memory_1": dog_memory, "memory_2": dog_memory, "rule": "sum"},
        "SampleConcept": {"memory": dog_memory, "files": ""},
        "EditConcept": {"memory": dog_memory, "files": "", "other": dog_memory},
        "ExportConceptMemory": {"memory": dog_memory, "filename": "values"},
        "ConceptMatrix": {**models, "vae": random_model.vae, "memory": dog_memory},
    }


def belongs(socket, value):
    """Whether a value of WRONG is right for an input after all."""
    kind = socket.get_io_type()
    if value is None:
        return socket.optional
    if kind in ("STRING", "COMBO"):
        return isinstance(value, str)
    if kind == "BOOLEAN":
        return isinstance(value, bool)
    if kind in ("INT", "FLOAT"):
        return isinstance(value, int if kind == "INT" else int | float) and not isinstance(value, bool)
    return kind == "MASK" and isinstance(value, torch.Tensor)


def test_whatever_is_wired_wrongly_is_named(nodes, run, sound):
    tried = 0
    for node_id, given in sound.items():
        schema = nodes[node_id].GET_SCHEMA()
        for socket in schema.inputs:
            for value in WRONG:
                if belongs(socket, value) and not (isinstance(value, float) and not math.isfinite(value)):
                    continue
                if isinstance(value, list) and schema.is_input_list:
                    continue  # an empty list: nothing is connected
                with pytest.raises(
                    ValueError, match=rf"{schema.display_name}: {socket.id} is .*; expected "
                ) as e:
                    run(node_id, **{**given, socket.id: value})
                assert len(str(e.value)) < 500
                tried += 1
    assert tried > 500


def test_numbers_of_wires_have_a_range_too(nodes, run, sound):
    for node_id, given in sound.items():
        for socket in nodes[node_id].GET_SCHEMA().inputs:
            if socket.get_io_type() in ("INT", "FLOAT"):
                for value in (socket.min - 1, socket.max + 1):
                    with pytest.raises(ValueError, match=rf"{socket.id} is .*; expected .* from"):
                        run(node_id, **{**given, socket.id: value})


def test_a_choice_that_there_is_not_is_refused(nodes, run, sound):
    for node_id, given in sound.items():
        for socket in nodes[node_id].GET_SCHEMA().inputs:
            if socket.get_io_type() == "COMBO":
                with pytest.raises(ValueError, match=r"expected one of|There is no|Pictures come from"):
                    run(node_id, **{**given, socket.id: "hope"})


def test_text_without_end_is_refused_at_once(run, sound):
    endless = "a <my-dog> " * 10**6
    for node_id, name in (
        ("LoadConceptImages", "caption"),
        ("SelectConceptNeurons", "keep"),
        ("ContinualTrain", "preview_prompt"),
        ("ApplyPersonalizedUNet", "strengths"),
        ("CLIPScore", "prompt"),
    ):
        with pytest.raises(ValueError, match=rf"{name} is .*; expected at most 100,000 characters"):
            run(node_id, **{**sound[node_id], name: endless})


def test_saving_checks_its_name_before_anything_is_trained(nodes):
    for name in (7, None, "x" * 300):
        with pytest.raises(ValueError, match=r"filename is|no usable file name"):
            nodes["SaveConceptMemory"].check_lazy_status(name, False)


def test_a_mistyped_folder_of_models_is_looked_up_nowhere_else(run, sound):
    with pytest.raises(ValueError, match="There is no folder 'checkpoints/my-clip' below"):
        run("CLIPScore", **{**sound["CLIPScore"], "clip_model": "checkpoints/my-clip"})
