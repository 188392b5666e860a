"""Where the boxes of a workflow lie on the canvas: columns of groups, columns of boxes in a group."""

from __future__ import annotations

import math
from typing import Any

from .node_schema import ObjectInfo, inputs_of, is_widget, options_of
from .workflow_graph import Graph, Node, Note

TITLE, SLOT, WIDGET, TEXT_BOX = 30, 20, 24, 96  # heights in the classic editor, in pixels
NEW_SLOT, NEW_WIDGET, NEW_TEXT_BOX = 24, 34, 56  # the same in Nodes 2.0
NEW_NOTE = 1.9  # how much higher a note is there: larger text, never scrolled, and some fonts are wide
GAP, GROUP_GAP, GROUP_HEAD, MARGIN = 50, 60, 44, 20


def place(
    graph: Graph, info: ObjectInfo
) -> tuple[dict[int, tuple[int, int, int, int]], list[dict[str, Any]]]:
    """(left, top, width, height) of each box by id, and the groups. A box's title lies above its top.

    Heights are those of the classic editor; what is kept free is enough for Nodes 2.0, and for what a box
    grows to.
    """
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
                    height, room = _height_and_room(box, info)
                    places[box.id] = (x, y, box.width, height)
                    y += room + GAP + TITLE
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


def _height_and_room(box: Node | Note, info: ObjectInfo) -> tuple[int, int]:
    """The classic editor's own sum over slots and widgets, with what was asked for; and what is kept free."""
    if isinstance(box, Note):
        return box.height, _tens(NEW_NOTE * box.height)
    specs = [spec for _, spec in inputs_of(box, info)]
    widgets = [spec for spec in specs if is_widget(spec)]
    slots = max(len(specs) - len(widgets), len(info[box.kind]["output"]))
    texts = sum(bool(options_of(spec).get("multiline")) for spec in widgets)
    lines = len(widgets) - texts + sum(bool(options_of(s).get("control_after_generate")) for s in widgets)
    height = SLOT * slots + 6 + (8 if widgets else 0) + TEXT_BOX * texts + WIDGET * lines
    new_height = NEW_SLOT * (slots + 1) + NEW_TEXT_BOX * texts + NEW_WIDGET * lines
    return _tens(height + box.height), _tens(max(height, new_height) + box.height + box.grows)


def _tens(pixels: float) -> int:
    return 10 * math.ceil(pixels / 10)
