"""EraseConcept by the methods that train, in the real host."""

import sys

import pytest
import torch

METHODS = ("esd", "salun", "selective amnesia")
FEW = {
    "general_prompts": 24,
    "resolution": 64,
    "pictures": 2,
    "steps": 2,
    "batch_size": 1,
    "weight_lr": 1e-2,
    "look_steps": 1,
}


@pytest.fixture(scope="module", autouse=True)
def quickly_drawn(pack):
    """The pictures that are learned from."""
    module = sys.modules[f"{pack.__name__}.cns_core.host.erase_by_training"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_HOW", module.Sampling(steps=1, cfg=3.0))
        yield


@pytest.fixture(scope="module")
def erase(run, models):
    """Erases, by few pictures and steps."""

    def call(method, **inputs):
        return run("EraseConcept", **models, method=method, **{"words": "leopard", **FEW, **inputs})

    return call


@pytest.fixture(scope="module")
def on_top(erase, dog_memory):
    """By method, erased after a concept was learned; and what is told."""
    found = {}

    def call(method):
        if method not in found:
            found[method] = erase(method, memory=dog_memory, instead="cat", keep="cheetah")
        return found[method]

    return call


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_and_leaves_the_model_bit_for_bit_as_it_was(erase, run, models, method, untouched):
    memory, text = erase(method, seed=1)
    entry = memory.concepts[0]
    assert (entry.method, entry.kind, entry.token) == (method, "erasure", "")
    assert entry.settings["erase"]["steps"] == 2 and entry.settings["erase"]["words"] == ["leopard"]
    assert all(len(losses) == 2 for losses in entry.losses.values()) and "retain" in entry.losses
    assert any(bool(change.any()) for change in memory.changes().values())
    assert f"{method}, by weights keys and values, steps 2, weight_lr 0.01" in text
    assert "losses, from the first steps to the last: diffusion" in text
    assert "moves keys and values of general prompts by" in text
    run("ApplyPersonalizedUNet", **models, memory=memory)


@pytest.mark.parametrize("method", METHODS)
def test_it_is_a_term_on_top_of_what_was_learned_and_forgetting_is_exact(
    run, models, on_top, dog_memory, mug, method
):
    memory, text = on_top(method)
    token = dog_memory.concepts[0].token
    assert memory.names() == [*dog_memory.names(), "without leopard"]
    assert f"moves keys and values of `{token}` by" in text
    before, after, entry = dog_memory.changes(), memory.changes(), memory.concepts[-1].change
    for name, change in after.items():
        expected = (before[name].float() + entry.difference(name)).half()
        assert torch.equal(change, expected)
    rest, told = run("ForgetConcept", memory=memory, concept="without leopard", **models)
    assert rest.digest() == dog_memory.digest() and "gone without a rest" in told


def test_with_a_memory_the_model_stays_as_it_was(erase, dog_memory, untouched):
    assert erase("esd", memory=dog_memory, seed=2, retain=0.5)[0].names() == [
        *dog_memory.names(),
        "without leopard",
    ]


def test_cancel_leaves_the_model_as_it_was_and_the_next_run_goes_on(erase, hook, comfy, pack, untouched):
    import comfy.model_management as management

    def stop(value, total, preview, node_id=None):
        if (value, total) == (2, 5):  # nothing before training has so many parts
            management.interrupt_current_processing()

    runs = sys.modules[f"{pack.__name__}.cns_core.host.paths"].work_folder("runs")
    kept_before = set(runs.glob("*.safetensors"))
    how = {"method": "salun", "seed": 4, "steps": 5}
    hook(stop)
    with pytest.raises(management.InterruptProcessingException):
        erase(**how)
    hook(None)
    resumed, text = erase(**how)
    assert "went on after step 2 of 5, where it was stopped" in text
    again, text = erase(**how)
    assert "its result was taken from disk" in text and again.digest() == resumed.digest()
    (kept,) = set(runs.glob("*.safetensors")) - kept_before
    assert ".checkpoint" not in kept.name, "nothing is left of the run that was stopped"
    kept.unlink()
    whole, text = erase(**how)
    assert "went on" not in text and "from disk" not in text
    assert resumed.digest() == whole.digest()


@pytest.mark.parametrize("method", METHODS)
def test_it_is_saved_loaded_applied_at_any_strength_and_exported(run, models, on_top, dog_memory, method):
    memory = on_top(method)[0]
    run("SaveConceptMemory", memory=memory, filename=f"by {method}", overwrite=True)
    assert run("LoadConceptMemory", file=f"by {method}.safetensors")[0].digest() == memory.digest()
    none = memory.laid({"without leopard": 0.0})
    assert all(torch.equal(none[n].summed(), change) for n, change in dog_memory.changes().items())
    as_of = memory.stage(dog_memory.names()[-1])
    assert as_of.digest() == dog_memory.digest()
    for form in ("ComfyUI", "diffusers"):
        told = run("ExportConceptMemory", memory=memory, filename=f"by {method} {form}", form=form)[0]
        assert "without leopard: the LoRA does it by itself" in told


def test_more_of_the_unet_than_keys_and_values(erase, run, models):
    memory = erase("esd", weights="attention")[0]
    entry = memory.concepts[0].change
    assert set(memory.layout.names) < set(entry.layout.names)
    drawn = run("ApplyPersonalizedUNet", **models, memory=memory)[0]
    assert len(drawn.patches) == len(entry.layout.names)


def test_a_concept_is_learned_after_it(train, run, models, on_top, mug):
    memory = on_top("salun")[0]
    given = {**models, "concept": mug, "memory": memory}
    plan = run("SelectConceptNeurons", **given, what_may_move="directions", general_prompts=24)[0]
    both = train(mug, plan, memory=memory, direction_lr=0.1, least_gain=0.0, prior="none")[0]
    assert both.names() == [*memory.names(), "my mug"]
    rest, told = run("ForgetConcept", memory=both, concept="without leopard")
    assert "gone without a rest" in told and rest.names() == ["my dog", "my mug"]


def test_the_methods_own_values_are_told_and_other_methods_settings_too(erase):
    text = erase("esd", salient_percent=20.0, seed=1)[1]
    assert "negative_guidance 2" in text and "salient_percent: of other methods, and not used by esd" in text


def test_saved_graphs_of_before_mean_uce(nodes):
    """Widgets of before come first, in their order, and a graph without the new ones is as it was."""
    schema = nodes["EraseConcept"].GET_SCHEMA()
    widgets = [s for s in schema.inputs if s.get_io_type() in ("INT", "FLOAT", "STRING", "COMBO")]
    old = ["words", "instead", "keep", "general_prompts", "erase_weight", "keep_weight", "stay"]
    assert [s.id for s in widgets[:8]] == [*old, "method"]
    assert widgets[7].default == "uce" and all(s.optional for s in widgets[7:])
    of = {s.id: s.extra_dict.get("of_methods") for s in widgets if s.extra_dict}
    assert of["stay"] == ["uce"] and of["steps"] == list(METHODS) and of["salient_percent"] == ["salun"]


def test_settings_are_checked_before_any_work(erase):
    with pytest.raises(ValueError, match="resolution is 100, expected a multiple of 64"):
        erase("esd", resolution=100)
