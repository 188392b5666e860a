"""The bundled API workflows through HTTP on a whole server: learn, add, draw; cancel and resume; errors
before long work.
"""

from __future__ import annotations

import re
from io import BytesIO

import pytest
import requests
from PIL import Image

from devtools.api_client import ApiClient, PromptFailed
from devtools.bundled import GRAPHS
from devtools.graphs import add, find_one, keep_only, override, read_graph
from devtools.paths import ROOT
from devtools.staging import JUDGE_NAME, SHIPPED_CONCEPTS, SMALL_CHECKPOINT, stage_images

API = ROOT / "workflows" / "api"


@pytest.fixture(scope="module")
def small(live_process, live_host):
    """A bundled workflow at a size for tests."""
    folders = sorted(p.parent for p in SHIPPED_CONCEPTS.glob("*/concept.json"))
    stage_images(live_process.base, folders)

    def load(name, steps=3):
        graph = read_graph(API / f"{name}.json")
        for kind, inputs in {
            "CheckpointLoaderSimple": {"ckpt_name": SMALL_CHECKPOINT},
            "LoadConceptImages": {"resolution": 64},
            "SelectConceptNeurons": {"general_prompts": 24},
            "ContinualTrain": {"steps": steps, "preview_every": 2},
            "EmptyLatentImage": {"width": 64, "height": 64},
            "KSampler": {"steps": 2},
            "CLIPScore": {"clip_model": JUDGE_NAME},
        }.items():
            graph = override(graph, kind, **inputs)
        return graph

    return load


def pictures(client: ApiClient, outputs) -> list[Image.Image]:
    entries = [e for o in outputs.values() for e in o.get("images", []) if e["type"] == "output"]
    return [Image.open(BytesIO(client.view(e))) for e in entries]


def texts(outputs) -> str:
    return "\n".join(str(t) for o in outputs.values() for t in o.get("text", []))


def test_learn_then_add_then_draw(small, live_host, live_process):
    outputs = live_host.run(small("learn_concept"))
    assert len(pictures(live_host, outputs)) == 1
    said = texts(outputs)
    assert "forecast, with a made-up word" in said and "1 concept(s) on SD1" in said and "CLIP-I" in said
    memory = live_process.base / "models" / "concept_memory"
    assert (memory / "panda.safetensors").is_file()

    outputs = live_host.run(small("add_concept"))
    assert len(pictures(live_host, outputs)) == 3
    assert "2 concept(s) on SD1" in texts(outputs)

    outputs = live_host.run(small("draw_concepts"))
    drawn = pictures(live_host, outputs)
    assert len(drawn) == 4 and all(p.size == (64, 64) for p in drawn)
    assert all(low < high for p in drawn for low, high in p.convert("RGB").getextrema())


def test_a_checkpoint_saved_after_apply_is_said_to_lack_the_tokens(small, live_host, live_process):
    graph = override(small("draw_concepts"), "LoadConceptMemory", file="panda.safetensors")
    apply, loader = find_one(graph, "ApplyPersonalizedUNet"), find_one(graph, "CheckpointLoaderSimple")
    parts = {"model": [apply, 0], "clip": [apply, 1], "vae": [loader, 2], "filename_prefix": "baked"}
    outputs = live_host.run(keep_only(add(graph, "baked", "CheckpointSave", **parts), "baked"))
    (saved,) = (live_process.base / "output").glob("baked*")
    saved.unlink()
    assert "CheckpointSave writes the weights" in texts(outputs) and "<my-panda>" in texts(outputs)


def test_cancel_keeps_the_steps_and_the_same_graph_goes_on(small, live_host):
    graph = override(small("learn_concept", steps=24), "ContinualTrain", seed=77)
    graph = override(graph, "SaveConceptMemory", filename="cancelled")
    node, seen = find_one(graph, "ContinualTrain"), []

    def cancel(running, value, maximum):
        if running == node:
            seen.append(value)
            if value == 3 and maximum == 24:
                live_host.interrupt()

    with pytest.raises(PromptFailed, match="interrupted"):
        live_host.run(graph, on_progress=cancel)
    assert max(seen) < 24
    assert "Resumed after step" in texts(live_host.run(graph))


def test_stop_and_keep_ends_the_training_and_the_graph_goes_on(small, live_host):
    graph = override(
        small("learn_concept", steps=300), "ContinualTrain", seed=78
    )  # more than a slow answer takes
    graph = override(graph, "SaveConceptMemory", filename="stopped")
    node, answers = find_one(graph, "ContinualTrain"), []

    def stop(running, value, maximum):
        if (running, maximum) == (node, 300) and value >= 2 and not answers:
            (run,) = live_host.get_json("/cns/live")["runs"]
            assert run["node"] == node and run["step"] >= 2 and run["token"] == "<my-panda>"
            where = {"prompt_id": run["prompt_id"], "node": node}
            answers.append(requests.post(f"{live_host.url}/api/cns/stop", json=where, timeout=60))

    outputs = live_host.run(graph, on_progress=stop)
    assert answers[0].json() == {"stopping": True}
    said = texts(outputs)
    assert (
        re.search(r"Stopped after step \d+ of 300, as you asked\.", said)
        and "Saved stopped.safetensors" in said
    )
    assert len(pictures(live_host, outputs)) == 1
    listed = live_host.get_json("/cns/library")["files"]
    (entry,) = [file for file in listed if file["file"] == "stopped.safetensors"]
    assert 2 <= entry["concepts"][0]["steps"] < 300 and entry["other_base"] is False
    assert live_host.get_json("/cns/live") == {"runs": []}


def test_a_stock_node_that_lists_pictures_makes_one_concept(small, live_host):
    graph = override(small("learn_concept", steps=2), "SaveConceptMemory", filename="listed")
    graph = keep_only(graph, find_one(graph, "SaveConceptMemory"))
    graph = override(graph, "LoadConceptImages", name="listed", folder="(none)")
    graph = add(graph, "dataset", "LoadImageDataSetFromFolder", folder="panda")
    graph[find_one(graph, "LoadConceptImages")]["inputs"]["images"] = ["dataset", 0]
    trained = []
    outputs = live_host.run(graph, on_progress=lambda *progress: trained.append(progress))
    assert trained.count((find_one(graph, "ContinualTrain"), 1, 2)) == 1  # the first of two steps
    assert "1 concept(s) on SD1" in texts(outputs)


def test_what_can_be_known_of_the_file_is_checked_before_training(small, live_host):
    def saved(concept, file):
        graph = override(small("learn_concept", steps=2), "SaveConceptMemory", filename=file)
        graph = keep_only(graph, find_one(graph, "SaveConceptMemory"))
        return override(graph, "LoadConceptImages", name=concept)

    live_host.run(saved("my-panda", "taken"))
    trained = []
    for other, error in (
        (saved("my-panda", "a:b"), "is no usable file name"),
        (saved("my-other-panda", "taken"), "already holds other concepts"),
        (override(saved("my-panda", "taken"), "ContinualTrain", seed=7), "same name .seed 0 there, 7 here"),
    ):
        with pytest.raises(PromptFailed, match=error) as caught:
            live_host.run(other, on_progress=lambda *progress: trained.append(progress))
        # Hosts differ in which of the two comes first, when nothing else is left to do before them.
        assert caught.value.node_class in ("SaveConceptMemory", "ContinualTrain")
    assert not trained
    live_host.run(saved("my-panda", "taken"))  # the same again is saved again


def test_a_memory_may_be_loaded_that_a_waiting_graph_will_save(small, live_host):
    loads = {
        "m": {"class_type": "LoadConceptMemory", "inputs": {"file": "chained.safetensors"}},
        "t": {"class_type": "PreviewAny", "inputs": {"source": ["m", 1]}},
    }
    with pytest.raises(PromptFailed, match=r"no concept memory 'chained\.safetensors'"):
        live_host.run(loads)
    graph = override(small("learn_concept", steps=2), "SaveConceptMemory", filename="chained")
    live_host.queue(keep_only(graph, find_one(graph, "SaveConceptMemory")))
    assert "<my-panda>" in texts(live_host.run(loads))


@pytest.mark.parametrize("folder", ["../..", "/etc", "nowhere"])
def test_a_bad_folder_is_refused_when_queued(small, live_host, folder):
    graph = override(small("learn_concept"), "LoadConceptImages", folder=folder)
    with pytest.raises(PromptFailed, match=r"outside ComfyUI's input directory|no folder") as caught:
        live_host.run(graph)
    assert caught.value.node_class == "LoadConceptImages"


def test_an_unknown_token_in_a_scored_prompt_names_what_to_connect(small, live_host):
    graph = small("learn_concept")
    graph[find_one(graph, "CLIPScore")]["inputs"]["prompt"] = "a photo of <stranger>"
    with pytest.raises(PromptFailed, match="<stranger>"):
        live_host.run(graph)


def test_help_pages_and_templates_are_served(live_host):
    listed = live_host.get_json("/api/workflow_templates")
    (names,) = [v for k, v in listed.items() if k.endswith("CNS")]
    assert sorted(names) == sorted(describe.__name__ for describe in GRAPHS)
