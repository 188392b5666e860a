"""API-format graphs as plain data: find nodes by class, set inputs, keep only what one output needs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from .api_client import Graph
from .errors import DevToolError


def read_graph(path: Path) -> Graph:
    """A workflow file in API format."""
    if not path.is_file():
        raise DevToolError(
            f"The workflow {path} does not exist; the demo queues it. Restore it from the repository."
        )
    graph: Graph = json.loads(path.read_text(encoding="utf-8"))
    return graph


def find(graph: Graph, class_type: str) -> list[str]:
    """Ids of all nodes of a class, in the file's order."""
    return [node_id for node_id, node in graph.items() if node["class_type"] == class_type]


def find_one(graph: Graph, class_type: str) -> str:
    """The id of the only node of a class."""
    found = find(graph, class_type)
    if len(found) != 1:
        raise DevToolError(
            f"The workflow has {len(found)} {class_type} nodes, expected 1 (it has: "
            f"{', '.join(sorted({node['class_type'] for node in graph.values()}))}). "
            "The demo fits workflows/api/ as the repository has it."
        )
    return found[0]


def override(graph: Graph, class_type: str, **inputs: Any) -> Graph:
    """A copy with these inputs set on every node of a class; raises if a node has no such input."""
    changed = copy.deepcopy(graph)
    for node_id in find(changed, class_type):
        unknown = sorted(set(inputs) - set(changed[node_id]["inputs"]))
        if unknown:
            raise DevToolError(
                f"Node {node_id} ({class_type}) of the workflow has no input {', '.join(unknown)}."
            )
        changed[node_id]["inputs"].update(inputs)
    return changed


def exchange(graph: Graph, class_type: str, other: str) -> Graph:
    """A copy in which every node of a class is one of another, with the same inputs and outputs."""
    changed = copy.deepcopy(graph)
    for node_id in find(changed, class_type):
        changed[node_id]["class_type"] = other
    return changed


def add(graph: Graph, node_id: str, class_type: str, **inputs: Any) -> Graph:
    """A copy with one more node; an input that names another node's output is `[id, index]`."""
    if node_id in graph:
        raise DevToolError(f"The workflow has a node {node_id!r} already.")
    return {**graph, node_id: {"class_type": class_type, "inputs": inputs}}


def keep_only(graph: Graph, *outputs: str) -> Graph:
    """The nodes `outputs` and everything that they are made from."""
    wanted: dict[str, None] = {}
    waiting = list(outputs)
    while waiting:
        node_id = waiting.pop()
        if node_id not in wanted:
            wanted[node_id] = None
            waiting += [
                source for source in map(_source, graph[node_id]["inputs"].values()) if source is not None
            ]
    return {node_id: node for node_id, node in graph.items() if node_id in wanted}


def wired_from(graph: Graph, node_id: str, name: str) -> str:
    """The id of the node that the input `name` of a node is wired to."""
    source = _source(graph[node_id]["inputs"].get(name))
    if source is None:
        raise DevToolError(f"Input {name} of the workflow's node {node_id} is not wired to another node.")
    return source


def _source(value: Any) -> str | None:
    """The id of the node that an input is wired to, or None for a plain value."""
    is_link = isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
    return value[0] if is_link else None
