"""A described graph in the two formats ComfyUI knows: the graph editor's and the API's.

The host's `/object_info` tells each node's inputs, their order, their defaults and its outputs; nothing of
that is repeated in the description. The editor keeps widget values by position, the API by name.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from .node_schema import ObjectInfo, inputs_of, is_optional, is_widget, options_of, slot_of, value_of
from .workflow_graph import Graph, Node, Note, Output, number
from .workflow_layout import place

AFTER_GENERATE = "fixed"  # the value of the widget that the editor adds beneath a seed
NOTE_COLORS = {"color": "#432", "bgcolor": "#653"}


def api_format(graph: Graph, info: ObjectInfo) -> dict[str, Any]:
    """What `/prompt` takes: node id to class, inputs and title."""
    number(graph)
    prompt: dict[str, Any] = {}
    for node in graph.nodes():
        inputs = {name: value_of(node, name, spec) for name, spec in inputs_of(node, info) if is_widget(spec)}
        inputs |= {
            name: [str(value.node.id), slot_of(value, info)]
            for name, value in node.inputs.items()
            if isinstance(value, Output)
        }
        title = node.title or info[node.kind]["display_name"]
        prompt[str(node.id)] = {"inputs": inputs, "class_type": node.kind, "_meta": {"title": title}}
    return prompt


def editor_format(graph: Graph, info: ObjectInfo) -> dict[str, Any]:
    """What the graph editor opens: nodes with places and sizes, links, groups and notes."""
    number(graph)
    places, groups = place(graph, info)
    order = {node.id: position for position, node in enumerate(graph.nodes())}
    links: list[list[Any]] = []
    nodes: dict[int, dict[str, Any]] = {}
    for node in graph.nodes():
        nodes[node.id] = _editor_node(node, info) | {"order": order[node.id]}
    for node in graph.nodes():
        for slot, socket in enumerate(nodes[node.id]["inputs"]):
            source = node.inputs.get(socket["name"])
            if isinstance(source, Output):
                link, out = len(links) + 1, slot_of(source, info)
                socket["link"] = link
                nodes[source.node.id]["outputs"][out]["links"].append(link)
                links.append([link, source.node.id, out, node.id, slot, socket["type"]])
    for node in graph.nodes():
        # From 0.33 on the host's own output nodes have outputs, which older hosts do not know.
        if _is_stock_output(info[node.kind]) and not any(o["links"] for o in nodes[node.id]["outputs"]):
            nodes[node.id]["outputs"] = []
    for note in (box for box in graph.boxes() if isinstance(box, Note)):
        nodes[note.id] = {
            "id": note.id,
            "type": "MarkdownNote",
            "title": note.title,
            "flags": {},
            "order": len(nodes),
            "mode": 0,
            "inputs": [],
            "outputs": [],
            "properties": {},
            "widgets_values": [note.text],
            **NOTE_COLORS,
        }
    for box_id, box in nodes.items():
        left, top, width, height = places[box_id]
        box |= {"pos": [left, top], "size": [width, height]}
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"comfyui-cns/{graph.name}")),  # the same at every build
        "revision": 0,
        "last_node_id": len(nodes),
        "last_link_id": len(links),
        "nodes": list(nodes.values()),
        "links": links,
        "groups": groups,
        "config": {},
        "extra": {"ds": {"scale": 0.6, "offset": [110, 310]}},  # clear of the sidebar and the bars
        "version": 0.4,
    }


def _is_stock_output(spec: Mapping[str, Any]) -> bool:
    return bool(spec["output_node"]) and not _is_own(spec)


def _is_own(spec: Mapping[str, Any]) -> bool:
    own: bool = spec["python_module"].startswith("custom_nodes.")
    return own


def _editor_node(node: Node, info: ObjectInfo) -> dict[str, Any]:
    own = _is_own(info[node.kind])
    properties: dict[str, Any] = {
        "cnr_id": "comfyui-cns"
        if own
        else "comfy-core",  # tells the manager which pack a missing node is from
        "Node name for S&R": node.kind,
    }
    if node.models:
        properties["models"] = node.models
    specs = list(inputs_of(node, info))
    sockets: list[dict[str, Any]] = [
        {"name": name, "type": spec[0], "link": None}
        | ({"shape": 7} if is_optional(node, name, info) else {})
        for name, spec in specs
        if not is_widget(spec)
    ]
    widgets: list[Any] = []
    for name, spec in specs:
        if is_widget(spec):
            kind = spec[0] if isinstance(spec[0], str) else "COMBO"
            sockets.append({"name": name, "type": kind, "widget": {"name": name}, "link": None})
            widgets.append(value_of(node, name, spec))
            if options_of(spec).get("control_after_generate"):
                widgets.append(AFTER_GENERATE)
    outputs = zip(info[node.kind]["output_name"], info[node.kind]["output"], strict=True)
    written: dict[str, Any] = {
        "id": node.id,
        "type": node.kind,
        "flags": {},
        "mode": 0,
        "inputs": sockets,
        "outputs": [{"name": name, "type": kind, "links": []} for name, kind in outputs],
        "properties": properties,
    }
    if node.title:
        written["title"] = node.title
    return written | ({"widgets_values": widgets} if widgets else {})
