"""Continual Train's own widget in the page: progress, previews, cancel and resume, stop and keep."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from graph_page import finished, open_workflow, queue, show, texts

from devtools.api_client import ApiClient
from devtools.browser import wait_for_editor
from devtools.host_process import HostProcess
from devtools.paths import ROOT
from devtools.staging import SHIPPED_CONCEPTS, SMALL_CHECKPOINT, stage_images

LEARN = ROOT / "workflows" / "learn_concept.json"
STEPS = 60
# What learns and saves; the rest of the workflow would only take time.
KEPT = (
    "CheckpointLoaderSimple",
    "LoadConceptImages",
    "SelectConceptNeurons",
    "ContinualTrain",
    "SaveConceptMemory",
)
NODE = "() => app.graph.nodes.find((node) => node.type === 'ContinualTrain')"
IS = "(wanted) => document.querySelector('.cns-live')?.dataset.status === wanted"
# Steps done, as the widget tells them.
REACHED = """(step) => {
    const panel = document.querySelector('.cns-live[data-status="learning"]');
    return panel && parseInt(panel.querySelector('.cns-words').textContent) >= step;
}"""
TELLS = "(words) => document.querySelector('.cns-words')?.textContent.startsWith(words)"
HEAR = """async () => {
    const { api } = await import('/scripts/api.js');
    await new Promise((heard) => api.addEventListener('cns.progress', heard, { once: true }));
}"""


# Keeps the host busy until it is interrupted.
DRAWS_FOR_LONG = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": SMALL_CHECKPOINT}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
    "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    "4": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["1", 0],
            "positive": ["2", 0],
            "negative": ["2", 0],
            "latent_image": ["3", 0],
            "seed": 0,
            "steps": 10_000,
            "cfg": 1.0,
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 1.0,
        },
    },
    "5": {"class_type": "SaveLatent", "inputs": {"samples": ["4", 0], "filename_prefix": "for_long"}},
}


@pytest.fixture
def learning(drawn: Any, live_process: HostProcess, request: pytest.FixtureRequest) -> Any:
    """The page with the part of learn_concept that learns, at a size for tests."""
    stage_images(live_process.base, [SHIPPED_CONCEPTS / "panda"])
    nodes_2 = "nodes-2.0" in request.node.name
    values = {
        "CheckpointLoaderSimple": {"ckpt_name": SMALL_CHECKPOINT},
        "LoadConceptImages": {"resolution": 64},
        "SelectConceptNeurons": {"calibration_prompts": 4, "general_prompts": 24},
        "ContinualTrain": {"steps": STEPS, "seed": 900 + nodes_2, "preview_every": 2},
        "SaveConceptMemory": {"filename": f"watched_{nodes_2}"},
    }
    open_workflow(drawn, LEARN, values, KEPT)
    show(drawn, "ContinualTrain")
    return drawn


def test_it_is_watched_cancelled_resumed_and_stopped(
    learning: Any, live_host: ApiClient, tmp_path: Path
) -> None:
    page, panel = learning, learning.locator(".cns-live")
    assert panel.count() == 1 and panel.get_attribute("data-status") == "idle"
    low = page.evaluate(f"({NODE})().size[1]")

    other_job = live_host.queue(DRAWS_FOR_LONG)
    before = set(live_host.get_json("/history")) | {other_job}
    queue(page)
    page.wait_for_function(TELLS, arg="In the queue")
    live_host.interrupt()
    page.wait_for_function(REACHED, arg=3, timeout=240_000)
    assert "resumed" not in panel.locator(".cns-words").text_content()
    assert panel.locator("b").text_content() == "<my-panda>"
    assert "diffusion" in panel.locator(".cns-legend").text_content()
    assert len(panel.locator("polyline.cns-trend").first.get_attribute("points").split()) >= 2
    assert panel.locator(".cns-own img").count() == 4
    sizes = panel.locator("img").evaluate_all("(all) => all.map((image) => image.naturalWidth)")
    assert len(sizes) == 5 and all(size >= 64 for size in sizes)  # the last one is the preview
    box = panel.bounding_box()
    assert box is not None and box["height"] > 100  # of the screen, where half of all is shown
    assert page.evaluate(f"({NODE})().size[1]") >= low

    other = page.context.new_page()  # opened in the middle
    wait_for_editor(other, live_host)
    stranger = json.loads(LEARN.read_text(encoding="utf-8")) | {"id": str(uuid.uuid4())}
    (tmp_path / "stranger.json").write_text(json.dumps(stranger), encoding="utf-8")
    open_workflow(other, tmp_path / "stranger.json", {}, KEPT)  # another workflow, of the same nodes
    other.evaluate(HEAR)
    assert other.locator(".cns-live").get_attribute("data-status") == "idle"
    open_workflow(other, LEARN, {}, KEPT)  # the graph as it was saved
    other.wait_for_function(REACHED, arg=3)
    assert other.locator(".cns-live img").count() == 5
    other.close()

    page.get_by_label("Cancel current run").click()
    page.wait_for_function(IS, arg="cancelled")
    assert not panel.locator(".cns-stop").is_visible()
    assert finished(live_host, before)["status"]["status_str"] == "error"

    before = set(live_host.get_json("/history"))
    queue(page)
    page.wait_for_function(REACHED, arg=5, timeout=240_000)
    assert "resumed after" in panel.locator(".cns-words").text_content()
    panel.locator(".cns-stop").click()
    page.wait_for_function(IS, arg="stopped")
    entry = finished(live_host, before)
    assert entry["status"]["status_str"] == "success"
    said = texts(entry)
    assert f"of {STEPS}, as you asked." in said and "Resumed after step" in said and "Saved watched_" in said


def test_a_graph_is_saved_and_queued_as_if_the_widget_were_not_there(learning: Any) -> None:
    widgets = learning.evaluate(f"({NODE})().widgets.map((widget) => widget.name)")
    assert widgets[-1] == "cns_live"
    saved = learning.evaluate("() => app.graph.serialize()")
    (node,) = [node for node in saved["nodes"] if node["type"] == "ContinualTrain"]
    assert len(node["widgets_values"]) == len(widgets) - 1
    prompt = learning.evaluate("async () => (await app.graphToPrompt()).output")
    (inputs,) = [n["inputs"] for n in prompt.values() if n["class_type"] == "ContinualTrain"]
    assert "cns_live" not in inputs and inputs["steps"] == STEPS
