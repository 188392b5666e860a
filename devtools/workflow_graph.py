"""How a bundled workflow is described: nodes, links between them, notes, and groups laid out in columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import DevToolError

WIDTH = 330  # of a node, in pixels of the editor


@dataclass(frozen=True)
class Output:
    """One output of a node, by the name the host gives it."""

    node: Node
    name: str


@dataclass(eq=False)
class Node:
    """A node with the inputs that differ from their defaults: values, or outputs of other nodes.

    `height` is kept free below the widgets for a picture or a text, `grows` below the node for what it
    shows later.
    """

    kind: str
    inputs: dict[str, Any]
    title: str | None = None
    height: int = 0
    width: int = WIDTH
    grows: int = 0
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
        """Each node once, givers before takers; DevToolError when one was left out of the layout."""
        placed = [box for box in self.boxes() if isinstance(box, Node)]
        ordered: list[Node] = []

        def visit(node: Node) -> None:
            if node not in placed:
                raise DevToolError(
                    f"{self.name}: a {node.kind} node is used but stands in no group. Add it to the layout."
                )
            if node not in ordered:
                for source in sources(node):
                    visit(source.node)
                ordered.append(node)

        for node in placed:
            visit(node)
        return ordered


def number(graph: Graph) -> None:
    """Give every node its id, in the order of work; notes come last."""
    boxes: list[Node | Note] = [*graph.nodes(), *(box for box in graph.boxes() if isinstance(box, Note))]
    for count, box in enumerate(boxes, start=1):
        box.id = count


def sources(node: Node) -> list[Output]:
    """The outputs a node takes."""
    return [value for value in node.inputs.values() if isinstance(value, Output)]
