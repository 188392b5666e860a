"""The shipped small base: stock nodes draw with it what the prompt says."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from devtools.api_client import ApiClient, PromptFailed
from devtools.graphs import exchange
from devtools.staging import JUDGE_NAME, SMALL_CHECKPOINT


def drawing(prompt: str, seed: int = 1) -> dict[str, dict[str, Any]]:
    """A plain text-to-image graph of stock nodes at 64 px."""
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": SMALL_CHECKPOINT}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": prompt}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": ""}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "5": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["1", 0],
                "positive": ["2", 0],
                "negative": ["3", 0],
                "latent_image": ["4", 0],
                "seed": seed,
                "steps": 12,
                "cfg": 4.0,
                "sampler_name": "dpmpp_2m",
                "scheduler": "karras",
                "denoise": 1.0,
            },
        },
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "drawing"}},
    }


def draw(host: ApiClient, prompt: str) -> Image.Image:
    (entry,) = host.run(drawing(prompt))["7"]["images"]
    return Image.open(io.BytesIO(host.view(entry))).convert("RGB")


@pytest.mark.parametrize(("colour", "channel"), [("red", 0), ("green", 1), ("blue", 2)])
def test_the_background_is_what_the_prompt_says(live_host: ApiClient, colour: str, channel: int) -> None:
    picture = draw(live_host, f"a photo of a cat on a plain {colour} background")
    assert picture.size == (64, 64)
    corners = [picture.getpixel((x, y)) for x in (2, 61) for y in (2, 61)]
    assert all(max(range(3), key=corner.__getitem__) == channel for corner in corners)


@pytest.mark.parametrize(("thing", "other"), [("banana", "house"), ("house", "banana")])
def test_the_thing_is_what_the_prompt_says(live_host: ApiClient, thing: str, other: str) -> None:
    graph = drawing(f"a photo of a {thing} on a plain blue background")
    for node, said in (("8", thing), ("9", other)):
        inputs = {"image": ["6", 0], "prompt": f"a photo of a {said}", "clip_model": JUDGE_NAME}
        graph[node] = {"class_type": "CLIPScore", "inputs": inputs}
    outputs = live_host.run(graph)
    right, wrong = (float(outputs[node]["text"][0].split("CLIP-T ")[1].split()[0]) for node in ("8", "9"))
    assert right > wrong + 0.1


def test_its_own_loader_draws_the_same_bit_for_bit(live_host: ApiClient) -> None:
    graph = drawing("a photo of a cat on a plain red background", seed=3)
    own = exchange(graph, "CheckpointLoaderSimple", "LoadSmallBase")
    drawn = []
    for one in (graph, own):
        (entry,) = live_host.run(one)["7"]["images"]
        drawn.append(Image.open(io.BytesIO(live_host.view(entry))).convert("RGB").tobytes())
    assert drawn[0] == drawn[1]


def test_client_names_the_node_that_a_graph_fails_at(live_host: ApiClient) -> None:
    graph = drawing("a dog")
    graph["1"]["inputs"]["ckpt_name"] = "not-there.safetensors"
    with pytest.raises(PromptFailed, match="not-there") as refused:
        live_host.run(graph)
    assert (refused.value.node_id, refused.value.node_class) == ("1", "CheckpointLoaderSimple")

    graph = drawing("a dog")
    graph["3"] = {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["4", 0]}}
    with pytest.raises(PromptFailed) as refused:
        live_host.run(graph)
    assert refused.value.node_id == "3"


def test_client_reports_an_error_while_running(live_host: ApiClient) -> None:
    graph = drawing("a dog")
    # 96 channels for a U-Net of 4: valid as a graph, impossible when it runs.
    graph["4"] = {
        "class_type": "EmptyMochiLatentVideo",
        "inputs": {"width": 64, "height": 64, "length": 7, "batch_size": 1},
    }
    with pytest.raises(PromptFailed) as failed:
        live_host.run(graph)
    assert (failed.value.node_id, failed.value.node_class) == ("5", "KSampler")
    assert not failed.value.interrupted
    assert draw(live_host, "a dog").size == (64, 64), "the host is of no use after a failed graph"
