"""Settings of another way to learn than the chosen one are switched off, in both nodes that have them."""

from __future__ import annotations

from typing import Any

from graph_page import open_workflow, show

from devtools.paths import ROOT

LEARN = ROOT / "workflows" / "learn_concept.json"
OFF = """(kind) => app.graph.nodes.find((node) => node.type === kind).widgets
    .filter((one) => one.disabled && one.options.disabled).map((one) => one.name)"""
CHOOSE = """(way) => {
    const node = app.graph.nodes.find((one) => one.type === 'SelectConceptNeurons');
    const widget = node.widgets.find((one) => one.name === 'what_may_move');
    widget.value = way;
    widget.callback?.(way);
}"""
# In Nodes 2.0 the fields of a node are elements of the page.
FIELDS = """() => {
    const node = app.graph.nodes.find((one) => one.type === 'ContinualTrain');
    const box = document.querySelector(`[data-node-id="${node.id}"]`);
    return box && [...box.querySelectorAll('.lg-node-widget')]
        .filter((row) => row.querySelector('input:disabled, button:disabled, [aria-disabled="true"]')).length;
}"""
OF_NEURONS = ["neuron_lr", "keep_earlier", "keep_base"]


def test_settings_follow_the_chosen_way(drawn: Any) -> None:
    open_workflow(drawn, LEARN, {}, None)
    show(drawn, "ContinualTrain")
    assert drawn.evaluate(OFF, "ContinualTrain") == OF_NEURONS
    of_select = drawn.evaluate(OFF, "SelectConceptNeurons")
    assert "budget_percent" in of_select and "general_prompts" not in of_select
    by_directions = drawn.evaluate(FIELDS)
    drawn.evaluate(CHOOSE, "neurons")
    off = drawn.evaluate(OFF, "ContinualTrain")
    assert not set(off) & set(OF_NEURONS) and "direction_lr" in off and "guard" in off
    assert "budget_percent" not in drawn.evaluate(OFF, "SelectConceptNeurons")
    if by_directions is not None:
        assert by_directions >= len(OF_NEURONS)
    drawn.evaluate(CHOOSE, "guarded neurons")
    off = drawn.evaluate(OFF, "ContinualTrain")
    assert "direction_lr" in off and "guard" not in off and "neuron_lr" not in off


def test_settings_of_neither_are_off_after_choose_method(drawn: Any) -> None:
    open_workflow(drawn, ROOT / "workflows" / "compare_methods.json", {}, None)
    off = drawn.evaluate(
        """() => app.graph.nodes.filter((node) => node.type === 'ContinualTrain').map((node) => [
            node.getInputNode(node.inputs.findIndex((input) => input.name === 'neurons')).type,
            node.widgets.filter((one) => one.disabled).map((one) => one.name),
        ])"""
    )
    assert sorted(kind for kind, _ in off) == ["ChooseMethod", "ChooseMethod", "SelectConceptNeurons"]
    for kind, names in off:
        assert ("direction_lr" in names) == (kind == "ChooseMethod")
        assert set(OF_NEURONS) <= set(names) and "steps" not in names


def test_what_the_server_tells_is_shown(editor: Any) -> None:
    editor.evaluate(
        """async () => {
            const { api } = await import('/scripts/api.js');
            const detail = { text: 'Reading 9 general prompts', severity: 'info' };
            api.dispatchEvent(new CustomEvent('cns.notice', { detail }));
        }"""
    )
    editor.get_by_text("Reading 9 general prompts").wait_for()
