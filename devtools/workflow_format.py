"""A graph described once, written in the two formats ComfyUI knows: the graph editor's and the API's.

The host's `/object_info` tells each node's inputs, their order, their defaults and its outputs; nothing of that
is repeated in the description. The editor's format keeps widget values by position, the API's by name.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import DevToolError

ObjectInfo = Mapping[str, Any]
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
AFTER_GENERATE = "fixed"  # the value of the widget that the editor adds beneath a seed
TITLE, SLOT, WIDGET, TEXT_BOX, WIDTH = 30, 20, 24, 96, 330  # pixels in the editor
GAP, GROUP_GAP, GROUP_HEAD, MARGIN = 50, 60, 44, 20
NOTE_COLORS = {"color": "#432", "bgcolor": "#653"}


@dataclass(frozen=True)
class Output:
    """One output of a node, by the name the host gives it."""

    node: Node
    name: str


@dataclass(eq=False)
class Node:
    """A node with the inputs that differ from their defaults: values, or outputs of other nodes.

    `height` is kept free below the widgets for a picture or a text.
    """

    kind: str
    inputs: dict[str, Any]
    title: str | None = None
    height: int = 0
    width: int = WIDTH
    id: int = 0
    models: list[dict[str, str]] = field(default_factory=list)  # files the editor offers to fetch

    def __getitem__(self, name: str) -> Output:
        return Output(self, name)


@dataclass(eq=False)
class Note:
    """A text on the canvas (Markdown); no part of the API format."""

    text: str
    title: str
    height: int
    width: int = 400
    id: int = 0


@dataclass(frozen=True)
class Group:
    """A titled frame around columns of nodes."""

    title: str
    columns: Sequence[Sequence[Node | Note]]
    color: str = "#3f789e"


@dataclass
class Graph:
    """`layout` is columns of groups, left to right; the groups of a column lie beneath each other."""

    name: str
    layout: list[list[Group]] = field(default_factory=list)

    def boxes(self) -> Iterator[Node | Note]:
        for group in (group for column in self.layout for group in column):
            for nodes in group.columns:
                yield from nodes

    def nodes(self) -> list[Node]:
        """Each node once, those that give before those that take; DevToolError when one was left out of the layout."""
        placed = [box for box in self.boxes() if isinstance(box, Node)]
        ordered: list[Node] = []

        def visit(node: Node) -> None:
            if node not in placed:
                raise DevToolError(
                    f"{self.name}: a {node.kind} node is used but stands in no group. Add it to the layout."
                )
            if node not in ordered:
                for source in _sources(node):
                    visit(source.node)
                ordered.append(node)

        for node in placed:
            visit(node)
        return ordered


def number(graph: Graph) -> None:
    """Give every node its id, in the order of work; notes come last."""
    notes = [box for box in graph.boxes() if isinstance(box, Note)]
    for count, box in enumerate([*graph.nodes(), *notes], start=1):
        box.id = count


def api_format(graph: Graph, info: ObjectInfo) -> dict[str, Any]:
    """What `/prompt` takes: node id to class, inputs and title."""
    number(graph)
    prompt: dict[str, Any] = {}
    for node in graph.nodes():
        inputs = {name: _value(node, name, spec) for name, spec in _inputs(node, info) if _is_widget(spec)}
        inputs |= {
            name: [str(value.node.id), _slot(value, info)]
            for name, value in node.inputs.items()
            if isinstance(value, Output)
        }
        title = node.title or info[node.kind]["display_name"]
        prompt[str(node.id)] = {"inputs": inputs, "class_type": node.kind, "_meta": {"title": title}}
    return prompt


def editor_format(graph: Graph, info: ObjectInfo) -> dict[str, Any]:
    """What the graph editor opens: nodes with places and sizes, links, groups and notes."""
    number(graph)
    places, groups = _place(graph, info)
    order = {node.id: position for position, node in enumerate(graph.nodes())}
    links: list[list[Any]] = []
    nodes: dict[int, dict[str, Any]] = {}
    for node in graph.nodes():
        nodes[node.id] = _editor_node(node, info) | {"order": order[node.id]}
    for node in graph.nodes():
        for slot, socket in enumerate(nodes[node.id]["inputs"]):
            source = node.inputs.get(socket["name"])
            if isinstance(source, Output):
                link, out = len(links) + 1, _slot(source, info)
                socket["link"] = link
                nodes[source.node.id]["outputs"][out]["links"].append(link)
                links.append([link, source.node.id, out, node.id, slot, socket["type"]])
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
    for number_, box in nodes.items():
        left, top, width, height = places[number_]
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
        "extra": {"ds": {"scale": 0.5, "offset": [60, 60]}},
        "version": 0.4,
    }


def _editor_node(node: Node, info: ObjectInfo) -> dict[str, Any]:
    own = info[node.kind]["python_module"].startswith("custom_nodes.")
    properties: dict[str, Any] = {
        "cnr_id": "comfyui-cns"
        if own
        else "comfy-core",  # tells the manager which pack a missing node is from
        "Node name for S&R": node.kind,
    }
    if node.models:
        properties["models"] = node.models
    specs = list(_inputs(node, info))
    sockets: list[dict[str, Any]] = [
        {"name": name, "type": spec[0], "link": None}
        | ({"shape": 7} if _is_optional(node, name, info) else {})
        for name, spec in specs
        if not _is_widget(spec)
    ]
    widgets: list[Any] = []
    for name, spec in specs:
        if _is_widget(spec):
            kind = spec[0] if isinstance(spec[0], str) else "COMBO"
            sockets.append({"name": name, "type": kind, "widget": {"name": name}, "link": None})
            widgets.append(_value(node, name, spec))
            if _options(spec).get("control_after_generate"):
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


def _place(
    graph: Graph, info: ObjectInfo
) -> tuple[dict[int, tuple[int, int, int, int]], list[dict[str, Any]]]:
    """(left, top, width, height) of each box by id, and the groups. A box's title lies above its top."""
    places: dict[int, tuple[int, int, int, int]] = {}
    groups: list[dict[str, Any]] = []
    left = 0
    for column in graph.layout:
        top, right = 0, left
        for group in column:
            x, bottom = left + MARGIN, top
            for nodes in group.columns:
                y = top + GROUP_HEAD + TITLE
                for box in nodes:
                    height = box.height if isinstance(box, Note) else _height(box, info)
                    places[box.id] = (x, y, box.width, height)
                    y += height + GAP + TITLE
                bottom = max(bottom, y - GAP - TITLE + MARGIN)
                x += max(box.width for box in nodes) + GAP
            width = x - GAP + MARGIN - left
            bounds = [left, top, width, bottom - top]
            groups.append(
                {
                    "id": len(groups) + 1,
                    "title": group.title,
                    "bounding": bounds,
                    "color": group.color,
                    "font_size": 24,
                    "flags": {},
                }
            )
            right, top = max(right, left + width), bottom + GROUP_GAP
        left = right + GROUP_GAP
    return places, groups


def _height(node: Node, info: ObjectInfo) -> int:
    """The editor's own sum over slots and widgets, and the room that was asked for."""
    specs = [spec for _, spec in _inputs(node, info)]
    widgets = [spec for spec in specs if _is_widget(spec)]
    slots = max(len(specs) - len(widgets), len(info[node.kind]["output"]))
    total = SLOT * slots + 6 + (8 if widgets else 0) + node.height
    for spec in widgets:
        total += TEXT_BOX if _options(spec).get("multiline") else WIDGET
        total += WIDGET if _options(spec).get("control_after_generate") else 0
    return 10 * math.ceil(total / 10)


def _sources(node: Node) -> list[Output]:
    return [value for value in node.inputs.values() if isinstance(value, Output)]


def _inputs(node: Node, info: ObjectInfo) -> Iterator[tuple[str, list[Any]]]:
    """(name, spec) in the node's own order. DevToolError for a node or an input that the host does not know."""
    if node.kind not in info:
        raise DevToolError(
            f"The host has no node {node.kind!r}. Is the pack loaded, and the host new enough?"
        )
    known = {**info[node.kind]["input"].get("required", {}), **info[node.kind]["input"].get("optional", {})}
    if unknown := sorted(set(node.inputs) - set(known)):
        raise DevToolError(
            f"{node.kind} has no input {unknown}; it has {list(known)}. Correct the description."
        )
    for name, spec in known.items():
        missing = not _is_widget(spec) and name not in node.inputs
        if missing and not _is_optional(node, name, info):
            raise DevToolError(
                f"{node.kind}: the input {name!r} needs a link. Connect it in the description."
            )
        yield name, spec


def _is_optional(node: Node, name: str, info: ObjectInfo) -> bool:
    return name in info[node.kind]["input"].get("optional", {})


def _options(spec: Sequence[Any]) -> Mapping[str, Any]:
    return spec[1] if len(spec) > 1 else {}


def _is_widget(spec: Sequence[Any]) -> bool:
    return (isinstance(spec[0], list) or spec[0] in WIDGET_TYPES) and not _options(spec).get("forceInput")


def _value(node: Node, name: str, spec: Sequence[Any]) -> Any:
    """The given value, else the default; for a linked widget the default, which the editor shows greyed out."""
    given = node.inputs.get(name)
    if given is not None and not isinstance(given, Output):
        return given
    if "default" in _options(spec):
        return _options(spec)["default"]
    if spec[0] == "STRING":
        return ""
    raise DevToolError(f"{node.kind}: the input {name!r} has no default. Give it a value in the description.")


def _slot(output: Output, info: ObjectInfo) -> int:
    names = info[output.node.kind]["output_name"]
    if output.name not in names:
        raise DevToolError(f"{output.node.kind} has no output {output.name!r}; it has {names}.")
    return int(names.index(output.name))
