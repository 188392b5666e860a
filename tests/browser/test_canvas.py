"""What the editor itself does with what the pack gives it: pictures that carry their workflow, help pages."""

from __future__ import annotations

from typing import Any

from graph_page import draw_with, finished, open_workflow, queue

from devtools.api_client import ApiClient
from devtools.host_process import HostProcess
from devtools.paths import ROOT
from devtools.staging import SHIPPED_CONCEPTS, SMALL_CHECKPOINT, stage_images

LEARN = ROOT / "workflows" / "learn_concept.json"
SMALL = {
    "CheckpointLoaderSimple": {"ckpt_name": SMALL_CHECKPOINT},
    "LoadConceptImages": {"resolution": 64},
    "SelectConceptNeurons": {"calibration_prompts": 4, "general_prompts": 24},
    "ContinualTrain": {"steps": 3, "seed": 910, "preview_every": 0},
    "SaveConceptMemory": {"filename": "dropped"},
    "EmptyLatentImage": {"width": 64, "height": 64},
    "KSampler": {"steps": 2},
}
DROP = """async (address) => {
    const picture = await (await fetch(address)).blob();
    const carried = new DataTransfer();
    carried.items.add(new File([picture], 'drawn.png', { type: 'image/png' }));
    app.graph.clear();
    const canvas = document.querySelector('#graph-canvas');
    canvas.dispatchEvent(new DragEvent('drop', { dataTransfer: carried, bubbles: true, cancelable: true }));
}"""
WIDGETS = """() => Object.fromEntries(app.graph.nodes.map((node) => [
    node.type, Object.fromEntries((node.widgets ?? []).map((widget) => [widget.name, widget.value])),
]))"""


def test_a_picture_that_was_drawn_brings_its_workflow_back(
    editor: Any, live_host: ApiClient, live_process: HostProcess
) -> None:
    stage_images(live_process.base, [SHIPPED_CONCEPTS / "panda"])
    open_workflow(editor, LEARN, SMALL)
    for scoring in ("CLIPScore", "PreviewAny"):
        editor.evaluate(
            "(type) => [...app.graph.nodes].forEach((n) => n.type === type && app.graph.remove(n))", scoring
        )
    nodes = editor.evaluate("() => app.graph.nodes.length")
    before = set(live_host.get_json("/history"))
    queue(editor)
    entry = finished(live_host, before)
    assert entry["status"]["status_str"] == "success"
    (picture,) = [
        i for out in entry["outputs"].values() for i in out.get("images", []) if i["type"] == "output"
    ]
    address = f"/view?filename={picture['filename']}&subfolder={picture['subfolder']}&type=output"
    editor.evaluate(DROP, address)
    editor.wait_for_function("(count) => app.graph.nodes.length === count", arg=nodes)
    widgets = editor.evaluate(WIDGETS)
    assert widgets["ContinualTrain"]["steps"] == 3 and widgets["ContinualTrain"]["seed"] == 910
    assert widgets["ContinualTrain"]["keep_days"] == 90
    assert widgets["SaveConceptMemory"]["filename"] == "dropped"
    assert editor.locator(".cns-live").count() >= 1


def test_the_help_panel_shows_the_packs_page(drawn: Any) -> None:
    drawn.evaluate(
        """() => {
            app.graph.clear();
            const node = LiteGraph.createNode('ContinualTrain');
            app.graph.add(node);
            app.canvas.ds.scale = 0.5;
            app.canvas.ds.offset = [900, 300];
            app.canvas.setDirty(true, true);
        }"""
    )
    if drawn.evaluate("() => LiteGraph.vueNodesMode"):
        drawn.locator(".lg-node-header").click()
    else:
        drawn.evaluate("() => app.canvas.selectNode(app.graph.nodes[0])")
    drawn.get_by_test_id("info-button").click()
    page = drawn.locator(".node-help-content .markdown-content")
    page.wait_for()
    told = (ROOT / "web" / "docs" / "ContinualTrain.md").read_text(encoding="utf-8")
    heading = next(line.lstrip("# ") for line in told.splitlines() if line.startswith("#"))
    drawn.wait_for_function(
        "(heading) => document.querySelector('.node-help-content').textContent.includes(heading)", arg=heading
    )


def test_nodes_2_shows_and_keeps_small_numbers(editor: Any) -> None:
    draw_with(editor, True)
    try:
        editor.evaluate(
            """() => {
                app.graph.clear();
                app.graph.add(LiteGraph.createNode('ContinualTrain'));
                app.canvas.ds.offset = [400, 200];
            }"""
        )
        # In newer front ends the box around the field has the label, and a handle lies over the field.
        field = editor.locator("input[aria-label='neuron_lr'], [aria-label='neuron_lr'] input")
        field.focus()
        assert float(field.input_value()) == 0.00004
        field.press("Tab")
        rate = "() => app.graph.nodes[0].widgets.find((widget) => widget.name === 'neuron_lr').value"
        assert editor.evaluate(rate) == 0.00004
    finally:
        draw_with(editor, False)
