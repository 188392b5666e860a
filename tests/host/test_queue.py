"""What the graph that is queued tells of nodes that come later."""


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
