"""Every node's schema in the real ComfyUI."""

NODE_IDS = {
    "LoadConceptImages",
    "SelectConceptNeurons",
    "ChooseMethod",
    "ContinualTrain",
    "ApplyPersonalizedUNet",
    "CLIPScore",
    "SaveConceptMemory",
    "LoadConceptMemory",
    "ForgetConcept",
    "EraseConcept",
    "RefineConcept",
    "MergeMemories",
    "MergeConcepts",
    "SampleConcept",
    "EditConcept",
    "LocateConcept",
    "ExportConceptMemory",
    "ImportConcept",
    "ConceptMatrix",
    "CaptionConceptImages",
}


def test_ids_tooltips_defaults_and_ranges(nodes):
    assert set(nodes) == NODE_IDS
    for node in nodes.values():
        schema = node.GET_SCHEMA()
        assert schema.category == "CNS" and schema.display_name and schema.description
        for socket in schema.inputs:
            assert socket.tooltip, (schema.node_id, socket.id)
            if socket.get_io_type() in ("INT", "FLOAT"):
                assert socket.default is not None and socket.min is not None and socket.max is not None
                assert socket.min <= socket.default <= socket.max


def test_rarely_used_inputs_are_marked_advanced(nodes):
    known = nodes["ContinualTrain"].INPUT_TYPES()
    info = known["required"] | known["optional"]
    assert info["keep_earlier"][1]["advanced"] is True and "advanced" not in info["steps"][1]


def test_the_memory_folder_is_registered_and_a_users_own_place_survives(pack, nodes, comfy):
    import folder_paths
    from ComfyUI_CNS.cns_core.host.paths import register_memory_folder

    places, extensions = folder_paths.folder_names_and_paths["concept_memory"]
    assert any(p.endswith("concept_memory") for p in places) and ".safetensors" in extensions
    folder_paths.folder_names_and_paths["concept_memory"] = (["/elsewhere"], set())
    register_memory_folder()
    assert folder_paths.get_folder_paths("concept_memory")[0] == "/elsewhere"
    folder_paths.folder_names_and_paths["concept_memory"] = (places, extensions)
