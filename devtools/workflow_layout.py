"""Where the boxes of a workflow lie on the canvas: columns of groups, columns of boxes in a group."""

from __future__ import annotations

import math
from typing import Any

from .node_schema import ObjectInfo, inputs_of, is_widget, options_of
from .workflow_graph import Graph, Node, Note

TITLE, SLOT, WIDGET, TEXT_BOX = 30, 20, 24, 96  # heights in the editor, in pixels
GAP, GROUP_GAP, GROUP_HEAD, MARGIN = 50, 60, 44, 20


def place(
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
    specs = [spec for _, spec in inputs_of(node, info)]
    widgets = [spec for spec in specs if is_widget(spec)]
    slots = max(len(specs) - len(widgets), len(info[node.kind]["output"]))
    total = SLOT * slots + 6 + (8 if widgets else 0) + node.height
    for spec in widgets:
        total += TEXT_BOX if options_of(spec).get("multiline") else WIDGET
        total += WIDGET if options_of(spec).get("control_after_generate") else 0
    return 10 * math.ceil(total / 10)
