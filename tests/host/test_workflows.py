"""The bundled workflows: both formats agree with their one description, and the canvas is tidy."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest
from PIL import Image

from devtools.api_client import ApiClient
from devtools.build_workflows import FOLDER, build
from devtools.bundled import GRAPHS
from devtools.concept_folders import read_concepts
from devtools.staging import DEMO_CONCEPTS, SHIPPED_CONCEPTS

NAMES = [describe.__name__ for describe in GRAPHS]
Box = tuple[float, float, float, float]  # left, top, right, bottom


def workflow(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def node_box(node: dict[str, Any]) -> Box:
    """With the title, which lies 30 pixels above the node's place."""
    (left, top), (width, height) = node["pos"], node["size"]
    return left, top - 30, left + width, top + height


def overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_committed_files_are_what_the_description_builds(live_host: ApiClient) -> None:
    for name, text in build(live_host.get_json("/object_info")).items():
        committed = (FOLDER / name).read_text(encoding="utf-8")
        assert committed == text, f"workflows/{name} is stale: run python -m devtools.build_workflows"


def test_no_other_workflows_are_bundled() -> None:
    for folder in (FOLDER, FOLDER / "api"):
        assert sorted(path.stem for path in folder.glob("*.json")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_links_join_what_they_say(name: str) -> None:
    graph = workflow(name)
    nodes = {node["id"]: node for node in graph["nodes"]}
    for link, source, out, target, slot, kind in graph["links"]:
        assert link in nodes[source]["outputs"][out]["links"]
        assert nodes[target]["inputs"][slot]["link"] == link
        assert nodes[target]["inputs"][slot]["type"] == kind
        assert kind in (nodes[source]["outputs"][out]["type"], "*")
        assert nodes[source]["order"] < nodes[target]["order"]
    assert graph["last_node_id"] == max(nodes) and graph["last_link_id"] == len(graph["links"])


@pytest.mark.parametrize("name", NAMES)
def test_both_formats_hold_the_same_values_and_links(name: str) -> None:
    graph = workflow(name)
    api = json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))
    origins = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    worked = {str(node["id"]): node for node in graph["nodes"] if node["type"] != "MarkdownNote"}
    assert {key: node["type"] for key, node in worked.items()} == {k: v["class_type"] for k, v in api.items()}
    for key, node in worked.items():
        linked = {i["name"]: origins[i["link"]] for i in node["inputs"] if i["link"] is not None}
        inputs = api[key]["inputs"]
        assert linked == {k: v for k, v in inputs.items() if isinstance(v, list)}
        for value in (v for v in inputs.values() if not isinstance(v, list)):
            assert value in node["widgets_values"]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_overlaps_and_groups_hold_their_nodes(name: str) -> None:
    graph = workflow(name)
    boxes = [node_box(node) for node in graph["nodes"]]
    assert not [pair for pair in combinations(boxes, 2) if overlap(*pair)]
    groups = [(x, y, x + w, y + h) for x, y, w, h in (group["bounding"] for group in graph["groups"])]
    assert not [pair for pair in combinations(groups, 2) if overlap(*pair)]
    for left, top, right, bottom in boxes:
        assert any(g[0] < left and g[1] + 34 <= top and right < g[2] and bottom < g[3] for g in groups)


@pytest.mark.parametrize("name", NAMES)
def test_each_has_a_note_and_a_small_thumbnail(name: str) -> None:
    assert any(node["type"] == "MarkdownNote" for node in workflow(name)["nodes"])
    thumbnail = FOLDER / f"{name}.jpg"
    assert thumbnail.stat().st_size <= 60_000
    with Image.open(thumbnail) as image:
        assert image.format == "JPEG" and min(image.size) >= 256


def test_demo_concepts_are_there_with_captions() -> None:
    concepts = read_concepts(SHIPPED_CONCEPTS, DEMO_CONCEPTS)
    assert [(one.name, one.kind) for one in concepts] == [
        ("my-panda", "subject"),
        ("my-tropical-fish", "subject"),
        ("my-pop-print", "style"),
    ]
    for one in concepts:
        assert 5 <= len(one.pictures) <= 6 and one.caption_source == "txt files"
