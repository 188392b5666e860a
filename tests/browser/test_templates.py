"""The bundled workflows as the editor opens them: from its list of templates, in both renderers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest

from devtools import browser
from devtools.api_client import ApiClient
from devtools.bundled import GRAPHS
from devtools.host_process import PACK_NAME, HostProcess
from devtools.staging import SHIPPED_CONCEPTS

NAMES = [describe.__name__ for describe in GRAPHS]
NODES_2, SCALED = "Comfy.VueNodes.Enabled", "Comfy.VueNodes.AutoScaleLayout"
# Nodes 2.0 moves the nodes of older workflows apart, unless that is switched off.
RENDERERS = {
    "classic": {NODES_2: False, SCALED: False},
    "nodes-2.0": {NODES_2: True, SCALED: True},
    "nodes-2.0-as-saved": {NODES_2: True, SCALED: False},
}
# Files that users have, or make with another workflow.
FILES_OF_USERS = {"ckpt_name", "folder", "file", "lora_name", "image"}
PICTURE = "drawn.png"
TEXT = 3 * "- keys and values of general prompts move by 0.02%\n- keys and values of `<my-panda>` by 0.4%\n"

# Left, top, right and bottom in the units of the graph, titles included.
BOXES = """() => {
    const { ds, canvas } = app.canvas;
    const at = canvas.getBoundingClientRect();
    const live = (element) => {
        const { left, top, right, bottom } = element.getBoundingClientRect();
        const [x, y] = ds.offset;
        return [
            (left - at.left) / ds.scale - x, (top - at.top) / ds.scale - y,
            (right - at.left) / ds.scale - x, (bottom - at.top) / ds.scale - y,
        ];
    };
    const box = ({ pos: [x, y], size: [width, height] }, title) => [x, y - title, x + width, y + height];
    const nodes = app.graph.nodes.map((node) => {
        const element = document.querySelector(`.lg-node[data-node-id="${node.id}"]`);
        return [node.title, element ? live(element) : box(node, LiteGraph.NODE_TITLE_HEIGHT)];
    });
    return { nodes, groups: app.graph.groups.map((group) => [group.title, box(group, 0)]) };
}"""
ALL_DRAWN = """() => {
    const drawn = document.querySelectorAll('.lg-node').length;
    return drawn === (LiteGraph.vueNodesMode ? app.graph.nodes.length : 0);
}"""
# What lies over the canvas at its left and top, as far as the graph's own left and top reach.
FREE_CORNER = """() => {
    const { right } = document.querySelector('.side-tool-bar-container').getBoundingClientRect();
    const { bottom } = document.querySelector('.subgraph-breadcrumb').getBoundingClientRect();
    const { ds, canvas } = app.canvas;
    const at = canvas.getBoundingClientRect();
    return [(right - at.left) / ds.scale - ds.offset[0], (bottom - at.top) / ds.scale - ds.offset[1]];
}"""
FAULTS = """(files) => app.graph.nodes.flatMap((node) => {
    const found = [];
    if (!(node.type in LiteGraph.registered_node_types)) found.push('is missing');
    if (node.has_errors) found.push('has errors');
    for (const { name, type, value, options } of node.widgets ?? []) {
        if (files.includes(name)) continue;
        const values = typeof options.values === 'function' ? options.values() : options.values;
        if (type === 'combo' && !values.includes(value)) found.push(`${name} is ${value}`);
        const outside = type === 'number' && !(options.min <= value && value <= options.max);
        if (outside) found.push(`${name} is ${value}`);
    }
    return found.map((fault) => `${node.title}: ${fault}`);
})"""
# As if the workflow had run: pictures, texts, and a concept that is being learned.
RUN = """async ([picture, text]) => {
    const { api } = await import('/scripts/api.js');
    const blob = await (await fetch(`/api/view?type=input&filename=${picture}`)).blob();
    const image = { filename: picture, subfolder: '', type: 'input' };
    const points = { diffusion: [3, 2, 1], prior: [1, 1, 2], keep: [1, 2, 2], base: [2, 1, 1] };
    for (const node of app.graph.nodes) {
        const id = String(node.id);
        const of = { prompt_id: 'p', node: id };
        const give = (output) => api.dispatchCustomEvent('executed', { ...of, display_node: id, output });
        if (['PreviewImage', 'SaveImage'].includes(node.type)) give({ images: [image] });
        if (node.type === 'PreviewAny') give({ text: [text] });
        if (node.type !== 'ContinualTrain') continue;
        api.dispatchCustomEvent('cns.progress', {
            ...of, name: 'my-panda', token: '<my-panda>', status: 'learning', step: 3, steps: 9, resumed: 0,
            seconds_left: 1, losses: { points, every: 1, steps: 3 }, pictures: [],
        });
        const where = { nodeId: id, displayNodeId: id, parentNodeId: id, realNodeId: id };
        api.dispatchCustomEvent('b_preview_with_metadata', { blob, ...where, promptId: 'p' });
    }
}"""


@pytest.fixture(scope="module", params=RENDERERS.values(), ids=RENDERERS)
def page(request: pytest.FixtureRequest, chromium: Any, live_process: HostProcess) -> Iterator[Any]:
    """An editor with one of the renderers."""
    shutil.copy(next(SHIPPED_CONCEPTS.glob("panda/*.png")), live_process.base / "input" / PICTURE)
    with ApiClient(live_process.url) as client, browser.editor(chromium, client) as opened:
        choose(opened, request.param)
        yield opened
        choose(opened, RENDERERS["classic"])


def choose(page: Any, settings: dict[str, bool]) -> None:
    for name, value in settings.items():
        page.evaluate("([name, on]) => app.extensionManager.setting.set(name, on)", [name, value])


def browse(page: Any) -> None:
    """Open the list of templates, at those of the pack."""
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_role("dialog").get_by_text(PACK_NAME, exact=True).first.click()


def settled(page: Any) -> dict[str, list[tuple[str, list[float]]]]:
    """Where everything lies, once it is there and lies still."""
    page.wait_for_function(ALL_DRAWN)
    before, now = None, page.evaluate(BOXES)
    while before != now:
        page.wait_for_timeout(700)
        before, now = now, page.evaluate(BOXES)
    return now


def overlap(a: list[float], b: list[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def untidy(boxes: dict[str, list[tuple[str, list[float]]]]) -> list[str]:
    """Nodes that lie on each other, and those that reach out of their group's frame."""
    nodes, groups = boxes["nodes"], boxes["groups"]
    found = [f"{a} lies on {b}" for (a, box), (b, other) in combinations(nodes, 2) if overlap(box, other)]
    for title, (left, top, right, bottom) in nodes:
        frames = [box for _, box in groups if box[0] <= left <= box[2] and box[1] <= top <= box[3]]
        if not frames:
            found.append(f"{title} stands in no group")
        elif right > frames[0][2] or bottom > frames[0][3]:
            found.append(f"{title} reaches out of its group")
    return found


def test_they_are_listed_with_their_pictures(editor: Any) -> None:
    browse(editor)
    cards = editor.locator("[data-testid^='template-workflow-']")
    cards.nth(len(NAMES) - 1).wait_for()
    listed = cards.evaluate_all("(all) => all.map((card) => card.dataset.testid.split('-').at(-1))")
    assert sorted(listed) == sorted(NAMES)
    for picture in cards.locator("img").all():
        picture.scroll_into_view_if_needed()
        editor.wait_for_function("(image) => image.naturalWidth > 0", arg=picture.element_handle())


@pytest.mark.parametrize("name", NAMES)
def test_each_opens_tidily_and_has_room_for_what_it_shows(page: Any, name: str) -> None:
    browse(page)
    page.get_by_test_id(f"template-workflow-{name}").click()
    page.wait_for_function(
        "(name) => app.extensionManager.workflow.activeWorkflow.filename.startsWith(name)", arg=name
    )
    page.get_by_role("dialog").first.wait_for(state="hidden")
    boxes = settled(page)
    assert page.get_by_role("dialog").count() == 0, page.get_by_role("dialog").first.text_content()
    assert page.evaluate(FAULTS, list(FILES_OF_USERS)) == []
    assert page.locator(".node-error").count() == 0
    assert untidy(boxes) == []
    right, bottom = page.evaluate(FREE_CORNER)
    hidden = [title for title, box in boxes["groups"] + boxes["nodes"] if box[0] < right or box[1] < bottom]
    assert hidden == []

    page.evaluate(RUN, [PICTURE, TEXT])
    assert untidy(settled(page)) == []
