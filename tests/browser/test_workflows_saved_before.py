"""A workflow that was saved when the sockets had no prefix still opens and runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from devtools.api_client import ApiClient
from devtools.host_process import HostProcess
from devtools.staging import JUDGE_NAME, SHIPPED_CONCEPTS, SMALL_CHECKPOINT, stage_images

SAVED = Path(__file__).with_name("learn_concept_before_prefixes.json")
# What the small base needs, by node and widget.
SMALL = {
    "CheckpointLoaderSimple": {"ckpt_name": SMALL_CHECKPOINT},
    "LoadConceptImages": {"resolution": 64},
    "SelectConceptNeurons": {"calibration_prompts": 4, "general_prompts": 24},
    "ContinualTrain": {"steps": 2, "seed": 77},
    "EmptyLatentImage": {"width": 64, "height": 64},
    "KSampler": {"steps": 2},
    "SaveConceptMemory": {"filename": "saved_before"},
    "CLIPScore": {"clip_model": JUDGE_NAME},
}
OPEN = """async ([saved, values]) => {
    await window.app.loadGraphData(saved);
    for (const node of window.app.graph.nodes)
        for (const [name, value] of Object.entries(values[node.type] ?? {}))
            node.widgets.find((widget) => widget.name === name).value = value;
    return window.app.graph.nodes.map((node) => ({
        type: node.type,
        missing: !(node.type in window.LiteGraph.registered_node_types),
        loose: (node.inputs ?? []).filter((input) => input.link == null).map((input) => input.name),
        sockets: [...(node.inputs ?? []), ...(node.outputs ?? [])].map((socket) => socket.type),
        widgets: Object.fromEntries((node.widgets ?? []).map((widget) => [widget.name, widget.value])),
    }));
}"""


def test_it_opens_with_every_wire_and_runs(
    editor: Any, live_host: ApiClient, live_process: HostProcess
) -> None:
    stage_images(live_process.base, [SHIPPED_CONCEPTS / "panda"])
    saved = json.loads(SAVED.read_text(encoding="utf-8"))
    assert {"CONCEPT", "NEURONS", "MEMORY"} <= {link[5] for link in saved["links"]}
    nodes = editor.evaluate(OPEN, [saved, SMALL])
    assert not [node["type"] for node in nodes if node["missing"]]
    by_type = {node["type"]: node for node in nodes}
    assert not {"concept", "neurons"} & set(by_type["ContinualTrain"]["loose"])
    assert "memory" not in by_type["ApplyPersonalizedUNet"]["loose"]
    # It can be wired to new nodes: the editor takes the sockets' types from the pack.
    assert not {"CONCEPT", "NEURONS", "MEMORY"} & {socket for node in nodes for socket in node["sockets"]}
    # Widgets are saved by their place alone: none may have moved.
    assert by_type["ContinualTrain"]["widgets"]["keep_base"] == 0.002
    selecting = by_type["SelectConceptNeurons"]["widgets"]
    assert selecting["calibration_prompts"] == 4 and selecting["select_by"] == "budget"
    # What was not there yet takes the default of today.
    assert selecting["what_may_move"] == "directions" and selecting["keep"] == ""

    before = set(live_host.get_json("/history"))
    editor.evaluate("() => window.app.queuePrompt(0, 1)")
    deadline = time.monotonic() + 300
    while not (finished := set(live_host.get_json("/history")) - before):
        assert time.monotonic() < deadline, "the queued workflow did not finish"
        time.sleep(0.5)
    (prompt,) = finished
    entry = live_host.history(prompt)
    assert entry is not None and entry["status"]["status_str"] == "success", [
        m[1].get("exception_message") for m in entry["status"]["messages"]
    ]
    written = "\n".join(str(text) for out in entry["outputs"].values() for text in out.get("text", []))
    assert "1 concept(s) on SD1" in written and "CLIP-I" in written
