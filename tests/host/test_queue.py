"""What the graph that is queued tells of nodes that come later."""

import pytest


def test_weights_are_written_after_a_node_through_any_others(pack):
    from ComfyUI_CNS.cns_core.host.queue import weights_written_after

    graph = {
        "apply": {"class_type": "ApplyPersonalizedUNet", "inputs": {"model": ["load", 0], "strength": 1.0}},
        "load": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a"}},
        "lora": {"class_type": "LoraLoader", "inputs": {"model": ["apply", 0], "clip": ["apply", 1]}},
        "1": {"class_type": "CheckpointSave", "inputs": {"model": ["lora", 0], "clip": ["lora", 1]}},
        "2": {"class_type": "ModelSave", "inputs": {"model": ["load", 0]}},
        "3": {"class_type": "CLIPSave", "inputs": {"clip": ["lora", 1]}},
        "4": {"class_type": "KSampler", "inputs": {"model": ["lora", 0]}},
    }
    assert weights_written_after(graph, "apply") == ["CLIPSave", "CheckpointSave"]
    assert weights_written_after(graph, "4") == []
    assert weights_written_after({}, "") == []


def scored(prompt, **inputs):
    """A graph that learns `<my-dog>` and scores something."""
    return {
        "load": {"class_type": "LoadConceptImages", "inputs": {"name": "my dog", "token": ""}},
        "train": {"class_type": "ContinualTrain", "inputs": {"concept": ["load", 0], "model": ["x", 0]}},
        "apply": {"class_type": "ApplyPersonalizedUNet", "inputs": {"memory": ["train", 0]}},
        "draw": {"class_type": "KSampler", "inputs": {"model": ["apply", 0]}},
        "text": {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "a <my-panda> in the snow"}},
        "score": {"class_type": "CLIPScore", "inputs": {"image": ["draw", 0], "prompt": prompt, **inputs}},
    }


def test_a_prompt_that_cannot_be_scored_is_told_before_training(pack):
    from ComfyUI_CNS.cns_core.host.queue import check_after

    for inputs in ({"concept": ["load", 0]}, {"memory": ["train", 0]}):
        check_after(scored("a <My-Dog> in the snow", **inputs), "train")
        for prompt in ("a <my-panda> in the snow", ["text", 0]):
            with pytest.raises(ValueError, match=r"'a <my-panda> in the snow' names.*then: <my-dog>\."):
                check_after(scored(prompt, **inputs), "train")
    with pytest.raises(ValueError, match=r"<my-dog>.*then: none"):
        check_after(scored("<my-dog>"), "train")


def test_what_cannot_be_told_beforehand_is_left_to_the_node(pack):
    from ComfyUI_CNS.cns_core.host.queue import check_after

    unknown = {"concept": ["load", 0], "concept_2": ["elsewhere", 0]}
    check_after(scored("<my-panda>", **unknown), "train")
    check_after(scored(["elsewhere", 0], concept=["load", 0]), "train")
    apart = scored("<my-panda>", concept=["load", 0])
    apart["score"]["inputs"]["image"] = ["elsewhere", 0]
    check_after(apart, "train")  # it gets nothing of what is trained


def test_selecting_looks_at_what_follows_before_it_reads_prompts(pack, nodes, models, dog, monkeypatch):
    from types import SimpleNamespace

    for kind in ("SelectConceptNeurons", "ChooseMethod"):
        graph = scored("<my-panda>", concept=["load", 0])
        graph["train"]["inputs"]["neurons"] = ["select", 0]
        graph["select"] = {"class_type": kind, "inputs": {"concept": ["load", 0]}}
        monkeypatch.setattr(nodes[kind], "hidden", SimpleNamespace(prompt=graph, unique_id="select"))
        inputs = {"method": "lora"} if kind == "ChooseMethod" else {"what_may_move": "directions"}
        with pytest.raises(ValueError, match="names <my-panda>"):
            nodes[kind].execute(**models, concept=dog, **inputs)
