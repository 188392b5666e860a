"""What a host's `/object_info` says of a described node: its inputs in order, their values, its outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .errors import DevToolError
from .workflow_graph import Node, Output

ObjectInfo = Mapping[str, Any]
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def inputs_of(node: Node, info: ObjectInfo) -> Iterator[tuple[str, list[Any]]]:
    """(name, spec) in the node's own order. DevToolError for a node or input the host does not know."""
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
        missing = not is_widget(spec) and name not in node.inputs
        if missing and not is_optional(node, name, info):
            raise DevToolError(
                f"{node.kind}: the input {name!r} needs a link. Connect it in the description."
            )
        yield name, spec


def is_optional(node: Node, name: str, info: ObjectInfo) -> bool:
    """Whether the node works without this input."""
    return name in info[node.kind]["input"].get("optional", {})


def options_of(spec: Sequence[Any]) -> Mapping[str, Any]:
    """Default, limits and the like of one input."""
    return spec[1] if len(spec) > 1 else {}


def is_widget(spec: Sequence[Any]) -> bool:
    """Whether the editor shows a widget for this input; all others are sockets alone."""
    return (isinstance(spec[0], list) or spec[0] in WIDGET_TYPES) and not options_of(spec).get("forceInput")


def value_of(node: Node, name: str, spec: Sequence[Any]) -> Any:
    """The given value, else the default; a linked widget has its default too, shown greyed out."""
    given = node.inputs.get(name)
    if given is not None and not isinstance(given, Output):
        return given
    if "default" in options_of(spec):
        return options_of(spec)["default"]
    if spec[0] == "STRING":
        return ""
    raise DevToolError(f"{node.kind}: the input {name!r} has no default. Give it a value in the description.")


def slot_of(output: Output, info: ObjectInfo) -> int:
    """The output's position at its node."""
    names = info[output.node.kind]["output_name"]
    if output.name not in names:
        raise DevToolError(f"{output.node.kind} has no output {output.name!r}; it has {names}.")
    return int(names.index(output.name))
