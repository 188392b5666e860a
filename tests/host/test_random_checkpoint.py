"""The random checkpoint is an SD 1.5 to the host, and stock nodes draw with it."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops, ImageStat

from devtools.api_client import ApiClient, PromptFailed
from devtools.random_checkpoint import SMALL_TEXT_OPTIONS


def test_is_taken_for_sd15_with_nothing_missing(
    comfy: ModuleType, small_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), torch.inference_mode():
        model, clip, _, _ = comfy.sd.load_checkpoint_guess_config(
            str(small_checkpoint), te_model_options=SMALL_TEXT_OPTIONS
        )
    assert type(model.model.model_config).__name__ == "SD15"
    keys = [
        name for name in model.model.state_dict() if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    ]
    assert len(keys) == 14
    assert clip.cond_stage_model.clip_l.num_layers == 2
    # The host says what a file lacks or has too much. No SD 1.5 checkpoint has CLIP's text projection.
    complaints = [text for text in caplog.messages if "missing" in text or "unexpected" in text]
    assert all("text_projection" in text and "encoder" not in text for text in complaints), complaints


def test_vae_keeps_pictures_apart(random_model: Any) -> None:
    pictures = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    pictures[1] *= torch.linspace(0, 1, 64)[:, None, None]
    with torch.inference_mode():
        latents = random_model.vae.encode(pictures)
        again = random_model.vae.decode(latents)
    assert latents.shape == (2, 4, 8, 8)
    assert latents.isfinite().all() and (latents[0] - latents[1]).abs().mean() > 0.1
    assert again.shape == pictures.shape and again.std() > 0.01


def drawing(prompt: str, seed: int = 1) -> dict[str, dict[str, Any]]:
    """A plain text-to-image graph of stock nodes at 64 px."""
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "random_sd15.safetensors"}},
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
                "steps": 6,
                "cfg": 7.0,
                "sampler_name": "euler",
                "scheduler": "normal",
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
