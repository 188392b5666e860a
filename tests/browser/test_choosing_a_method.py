"""Choose Method in the editor: of all the settings only those of the chosen method are seen."""

from __future__ import annotations

from typing import Any

ADD = """() => {
    app.graph.clear();
    const node = LiteGraph.createNode('ChooseMethod');
    node.pos = [100, 100];
    app.graph.add(node);
    app.canvas.ds.scale = 0.8;
    app.canvas.ds.offset = [300, 100];
    app.canvas.setDirty(true, true);
}"""
CHOOSE = """(method) => {
    const [node] = app.graph.nodes, widget = node.widgets.find((one) => one.name === 'method');
    widget.value = method;
    widget.callback?.(method);
}"""
SHOWN = "() => app.graph.nodes[0].widgets.filter((one) => !one.hidden).map((one) => one.name)"
HEIGHT = "() => app.graph.nodes[0].size[1]"
SAVED_AND_OPENED = "async () => { await app.loadGraphData(app.graph.serialize()); }"
VALUES = """() => Object.fromEntries(app.graph.nodes[0].widgets.map((one) => [one.name, one.value]))"""


def rows(page: Any) -> int:
    """How many settings one sees in Nodes 2.0, none in the classic renderer, which draws on a canvas."""
    return page.locator("[data-node-id] .lg-node-widget:visible").count()


def test_only_the_chosen_methods_settings_are_shown(drawn: Any) -> None:
    drawn.evaluate(ADD)
    assert drawn.evaluate(SHOWN) == ["method", "weights", "rank", "alpha", "weight_lr"]
    tall, seen = drawn.evaluate(HEIGHT), rows(drawn)
    drawn.evaluate(CHOOSE, "dreambooth")
    assert drawn.evaluate(SHOWN) == ["method", "weight_lr"]
    if seen:
        drawn.wait_for_function(
            "(before) => document.querySelectorAll('[data-node-id] .lg-node-widget').length < before",
            arg=seen,
        )
    else:
        assert drawn.evaluate(HEIGHT) < tall


def test_hidden_settings_keep_their_place_in_a_saved_graph(drawn: Any) -> None:
    drawn.evaluate(ADD)
    drawn.evaluate("() => { app.graph.nodes[0].widgets.find((one) => one.name === 'rank').value = 7; }")
    drawn.evaluate(CHOOSE, "oft")
    before = drawn.evaluate(VALUES)
    drawn.evaluate(SAVED_AND_OPENED)
    assert drawn.evaluate(VALUES) == before and before["rank"] == 7
    assert "rank" not in drawn.evaluate(SHOWN)


def test_erase_concept_shows_the_chosen_ones_settings_too(drawn: Any) -> None:
    drawn.evaluate(ADD.replace("ChooseMethod", "EraseConcept"))
    of_all = ["words", "instead", "keep", "general_prompts"]
    uce = [*of_all, "erase_weight", "keep_weight", "stay", "method"]
    assert drawn.evaluate(SHOWN) == uce
    drawn.evaluate(CHOOSE, "salun")
    shown = drawn.evaluate(SHOWN)
    assert shown[:5] == [*of_all, "method"] and {"steps", "guard", "salient_percent"} <= set(shown)
    assert not {"stay", "negative_guidance", "elastic"} & set(shown)
