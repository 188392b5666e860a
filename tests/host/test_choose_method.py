"""ChooseMethod: other methods of the field, some of which move more of the U-Net than keys and values."""

import pytest
import torch


@pytest.fixture(scope="module")
def choose(run, models, dog):
    """What the node gives: the plan and its report."""

    def call(method, **settings):
        plan, _, report = run("ChooseMethod", **models, concept=dog, method=method, **settings)
        return plan, report

    return call


@pytest.fixture(scope="module")
def learn(run, models, random_model, dog):
    """The memory after two steps."""

    def call(plan):
        given = {**models, "vae": random_model.vae, "concept": dog, "neurons": plan}
        return run("ContinualTrain", **given, steps=2, batch_size=1, prior="none")[0]

    return call


@pytest.fixture
def computed(models):
    """All weights of a MODEL's U-Net as it computes with them."""

    def call(model):
        from ComfyUI_CNS.cns_core.host.identity import PREFIX
        from ComfyUI_CNS.cns_core.host.weights import Weights

        weights = Weights(model, PREFIX)
        return {name.removeprefix(PREFIX): weights.computed(name).float() for name in weights.names()}

    return call


@pytest.mark.parametrize(
    ("method", "settings", "moved"),
    [
        (
            "lora",
            {"weights": "linear layers and convolutions", "rank": 2},
            "input_blocks.1.0.in_layers.2.weight",
        ),
        ("oft", {"weights": "attention"}, "middle_block.1.transformer_blocks.0.attn1.to_q.weight"),
        ("dreambooth", {}, "out.2.bias"),
    ],
)
def test_what_it_learns_is_drawn_exactly_and_the_model_stays(
    choose, learn, run, models, computed, untouched, method, settings, moved
):
    plan, report = choose(method, weight_lr=1e-3, **settings)
    memory = learn(plan)
    assert f"{method}, by " in report and (not settings or next(iter(settings)) in report)
    drawn = run("ApplyPersonalizedUNet", **models, memory=memory)[0]
    plain, personalized, changes = computed(models["model"]), computed(drawn), memory.changes()
    named = {(n if n.endswith(".bias") else f"{n}.weight"): change for n, change in changes.items()}
    assert bool(named[moved].any())
    for name, weight in plain.items():
        change = named.get(name)
        expected = weight if change is None else weight + change.float().view_as(weight)
        torch.testing.assert_close(personalized[name], expected, atol=2e-3, rtol=2e-3)  # of float16 weights
        if change is None:
            assert torch.equal(personalized[name], weight)


def test_a_concept_by_directions_learns_on_top_of_a_lora(
    choose, learn, run, models, random_model, mug, tmp_path
):
    first = learn(choose("lora", weights="linear layers", weight_lr=1e-3)[0])
    given = {**models, "concept": mug, "memory": first}
    plan = run("SelectConceptNeurons", **given, what_may_move="directions", general_prompts=24)[0]
    both = run("ContinualTrain", **given, vae=random_model.vae, neurons=plan, steps=2, batch_size=1)[0]
    assert both.names() == ["my dog", "my mug"]
    wide, after = first.changes(), both.changes()
    assert all(torch.equal(after[n], c) for n, c in wide.items() if n not in both.layout)
    from ComfyUI_CNS.cns_core.memory_file import load_memory, save_memory

    save_memory(tmp_path / "both.safetensors", both)
    assert load_memory(tmp_path / "both.safetensors").digest() == both.digest()
    drawn = run("ApplyPersonalizedUNet", **models, memory=both)[0]
    assert len(drawn.patches) == len(both.whole.names)


def test_the_methods_own_values_are_used_where_none_is_given(choose):
    plan, report = choose("lora")
    assert "rank 4" in report and "weight_lr 0.0001" in report
    assert (plan.training.rank, plan.training.weight_lr) == (4, 1e-4)


def test_a_setting_of_another_method_is_told(choose):
    _, report = choose("dreambooth", rank=8)
    assert "rank: of other methods, and not used by dreambooth" in report
    assert "MB in the memory's file" in report and "GB beside the model" in report, "before it trains"


def test_a_value_that_the_method_cannot_take_is_named(choose):
    with pytest.raises(ValueError, match="weights"):
        choose("oft", weights="linear layers")
