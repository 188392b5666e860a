"""The graph editor in a browser: which renderer draws, what is open in it, and waiting for what is queued."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from devtools.api_client import ApiClient

_OPEN = """async ([saved, values, kept]) => {
    await window.app.loadGraphData(saved);
    for (const node of [...window.app.graph.nodes]) {
        for (const [name, value] of Object.entries(values[node.type] ?? {}))
            node.widgets.find((widget) => widget.name === name).value = value;
        if (kept && !kept.includes(node.type)) window.app.graph.remove(node);
    }
}"""
_SHOW = """([type, scale]) => {
    const node = window.app.graph.nodes.find((node) => node.type === type);
    const { ds } = window.app.canvas;
    ds.scale = scale;
    ds.offset = [500 / scale - node.pos[0], 140 / scale - node.pos[1]];
    window.app.canvas.setDirty(true, true);
}"""


def draw_with(page: Any, nodes_2: bool) -> None:
    """Nodes 2.0 (Vue), or the classic canvas."""
    page.evaluate("(on) => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", nodes_2)
    page.wait_for_timeout(500)


def open_workflow(
    page: Any,
    path: Path,
    values: Mapping[str, Mapping[str, Any]],
    kept: Sequence[str] | None = None,
) -> None:
    """Open a saved workflow with other values of widgets, by node type and name.

    kept: the types of nodes that stay; the others are removed.
    """
    saved = json.loads(path.read_text(encoding="utf-8"))
    page.evaluate(_OPEN, [saved, values, None if kept is None else list(kept)])


def show(page: Any, node_type: str, scale: float = 0.5) -> None:
    """Move the view to a node."""
    page.evaluate(_SHOW, [node_type, scale])
    page.wait_for_timeout(500)


def queue(page: Any) -> None:
    page.evaluate("() => window.app.queuePrompt(0, 1)")


def finished(client: ApiClient, before: set[str], seconds: float = 300) -> dict[str, Any]:
    """What the host tells of the one prompt that was not among those of before, once it is over."""
    deadline = time.monotonic() + seconds
    while not (new := set(client.get_json("/history")) - before):
        if time.monotonic() > deadline:
            raise TimeoutError(f"The queued workflow did not finish within {seconds:.0f} s.")
        time.sleep(0.3)
    (prompt,) = new
    entry = client.history(prompt)
    assert entry is not None
    return entry


def texts(entry: Mapping[str, Any]) -> str:
    """All text that the nodes of a prompt have shown."""
    return "\n".join(str(text) for out in entry["outputs"].values() for text in out.get("text", []))
