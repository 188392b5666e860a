"""`python -m devtools.screenshots` remakes the pictures of the editor.

For the help pages each node wired up; for the README a concept that was learned on the small base, and the
library beside it. Some minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from PIL import Image

from .api_client import ApiClient
from .browser import chromium, editor
from .demo import SMALL_GUIDANCE, SMALL_LOADER, SMALL_RESOLUTION, SMALL_TRAINING, STOCK_LOADER
from .help_graphs import COLUMNS, help_graph
from .host_process import HostProcess
from .node_schema import ObjectInfo
from .paths import ROOT
from .staging import JUDGE_NAME, SHIPPED_CONCEPTS, stage_checkpoint, stage_clip, stage_images
from .workflow_format import editor_format
from .workflow_graph import Graph, number

HELP, WORKFLOWS = ROOT / "web" / "docs", ROOT / "workflows"
README = "README"
_OPEN = """async ([saved, values]) => {
    await window.app.loadGraphData(saved);
    for (const node of window.app.graph.nodes)
        for (const [name, value] of Object.entries(values[node.type] ?? {}))
            node.widgets.find((widget) => widget.name === name).value = value;
}"""
_MOVE = """([scale, x, y]) => {
    const { ds } = window.app.canvas;
    ds.scale = scale;
    ds.offset = [x, y];
    window.app.canvas.setDirty(true, true);
}"""
# Of the workflow's nodes those values that the small base needs, in little time.
_VALUES: dict[str, dict[str, Any]] = {
    "LoadConceptImages": {"resolution": SMALL_RESOLUTION, "caption_source": "txt files"},
    "ContinualTrain": {**SMALL_TRAINING, "steps": 120, "preview_every": 40},
    "EmptyLatentImage": {"width": SMALL_RESOLUTION, "height": SMALL_RESOLUTION},
    "KSampler": {"cfg": SMALL_GUIDANCE},
    "CLIPScore": {"clip_model": JUDGE_NAME},
}
_LEARNING_VIEW = (0.62, -420, -180)  # scale and offset that show the middle of the workflow
_MARGIN = 20  # pixels of the graph around what is shown
_CORNER = (460, 130)  # of the page, clear of its bars
_SCALE = 0.8
_SHOW = """async ([graph, left, top, scale, corner]) => {
    await window.app.loadGraphData(graph);
    const { ds } = window.app.canvas;
    ds.scale = scale;
    ds.offset = [corner[0] / scale - left, corner[1] / scale - top];
    window.app.canvas.setDirty(true, true);
}"""
_BOUNDS = """(ids) => {
    const boxes = window.app.graph.nodes.filter((n) => ids.includes(n.id)).map((n) => n.getBounding());
    const left = Math.min(...boxes.map((b) => b[0])), top = Math.min(...boxes.map((b) => b[1]));
    const right = Math.max(...boxes.map((b) => b[0] + b[2]));
    return [left, top, right, Math.max(...boxes.map((b) => b[1] + b[3]))];
}"""


def shoot(page: Any, graph: Graph, info: ObjectInfo, path: Path) -> None:
    """A picture of the last column's groups of a graph, without its frames."""
    saved = {**editor_format(graph, info), "groups": []}
    number(graph)
    shown = [box.id for group in graph.layout[-1] for nodes in group.columns for box in nodes]
    page.evaluate(_SHOW, [saved, 0, 0, _SCALE, _CORNER])
    page.wait_for_timeout(300)
    left, top, right, bottom = page.evaluate(_BOUNDS, shown)
    page.evaluate(_SHOW, [saved, left - _MARGIN, top - _MARGIN, _SCALE, _CORNER])
    page.wait_for_timeout(1000)
    clip = {
        "x": _CORNER[0],
        "y": _CORNER[1],
        "width": (right - left + 2 * _MARGIN) * _SCALE,
        "height": (bottom - top + 2 * _MARGIN) * _SCALE,
    }
    _save(page, path, clip)


def _save(page: Any, path: Path, clip: dict[str, float]) -> None:
    """A part of the page, in few colours."""
    page.screenshot(path=str(path), clip=clip)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(160, dither=Image.Dither.NONE).save(path, optimize=True)


def shoot_readme(page: Any, host: HostProcess, client: ApiClient, folder: Path) -> None:
    """The workflow learn_concept, once it has run on the small base, and the library."""
    page.evaluate(_OPEN, [_on_small_base(host), _VALUES])
    before = set(client.get_json("/history"))
    page.evaluate("() => window.app.queuePrompt(0, 1)")
    while not set(client.get_json("/history")) - before:
        time.sleep(1)
    page.wait_for_timeout(3000)
    page.evaluate(_MOVE, [*_LEARNING_VIEW])
    page.wait_for_timeout(1500)
    _save(page, folder / "learn_concept_editor.png", {"x": 0, "y": 40, "width": 1600, "height": 740})
    page.get_by_label("Concepts that were learned").click()
    page.wait_for_selector(".cns-concept")
    page.wait_for_timeout(1500)
    _save(page, folder / "library.png", {"x": 0, "y": 80, "width": 368, "height": 200})


def _on_small_base(host: HostProcess) -> dict[str, Any]:
    """learn_concept as the editor opens it, with the small base's own loader."""
    saved: dict[str, Any] = json.loads((WORKFLOWS / "learn_concept.json").read_text(encoding="utf-8"))
    for node in saved["nodes"]:
        if node["type"] == STOCK_LOADER:
            node["type"] = SMALL_LOADER
            node["widgets_values"] = [stage_checkpoint(host.base, None)]
    return saved


def main() -> None:
    """Start a host and a browser, and take them all, or those named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [README, *COLUMNS]
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NODE", help=f"node ids, or {README}"
    )
    parser.add_argument("--output", type=Path, help="folder; default: web/docs/ and docs/images/")
    options = parser.parse_args()
    host = HostProcess()
    stage_images(host.base, [SHIPPED_CONCEPTS / "panda"])
    stage_clip(host.base, None)
    with host, ApiClient(host.url) as client, chromium() as browser:
        info = client.get_json("/object_info")
        with editor(browser, client, 2200, 1700) as page:
            for node_id in filter(COLUMNS.get, options.only):
                shoot(page, help_graph(node_id), info, (options.output or HELP) / f"{node_id}.png")
        if README in options.only:
            with editor(browser, client) as page:
                shoot_readme(page, host, client, options.output or ROOT / "docs" / "images")


if __name__ == "__main__":
    main()
