"""Stock nodes draw through HTTP, and the client names what fails."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from devtools.api_client import ApiClient, PromptFailed
from devtools.staging import RANDOM_CHECKPOINT


def drawing(prompt: str, seed: int = 1) -> dict[str, dict[str, Any]]:
    """A plain text-to-image graph of stock nodes at 64 px."""
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": RANDOM_CHECKPOINT}},
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


def test_stock_nodes_draw_and_the_prompt_changes_the_picture(live_host: ApiClient) -> None:
    dog, car = draw(live_host, "a photo of a dog"), draw(live_host, "a red car on the moon")
    assert dog.size == (64, 64)
    assert max(ImageStat.Stat(dog).stddev) > 5, "the picture is nearly constant"
    assert max(ImageStat.Stat(ImageChops.difference(dog, car)).mean) > 2, "the prompt changes nothing"


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
