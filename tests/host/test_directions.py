"""Guarded directions in the real host: prepare, learn, resume, draw, take out; moments kept on disk."""

import pytest
import torch
from PIL import Image


@pytest.fixture(scope="module")
def concepts(run, host_base):
    generator = torch.Generator().manual_seed(4)
    found = []
    for folder, word in (("a fox", "fox"), ("a jug", "jug")):
        place = host_base / "input" / folder
        place.mkdir(exist_ok=True)
        for i in range(2):
            pixels = torch.randint(0, 255, (64, 64, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(place / f"{i}.png")
        found.append(
            run("LoadConceptImages", name=f"my {word}", class_word=word, folder=folder, resolution=64)[0]
        )
    return found


@pytest.fixture(scope="module")
def select(run, models):
    def call(concept, **inputs):
        return run("SelectConceptNeurons", **models, concept=concept, **{"general_prompts": 24, **inputs})

    return call


@pytest.fixture(scope="module")
def train(run, models, random_model):
    def call(concept, neurons, **inputs):
        settings = {"steps": 5, "token_lr": 1e-1, "direction_lr": 0.1, "batch_size": 2, "least_gain": 0.0}
        plan = {"vae": random_model.vae, "concept": concept, "neurons": neurons}
        return run("ContinualTrain", **models, **plan, **{**settings, **inputs})

    return call


@pytest.fixture(scope="module")
def one(select, train, concepts):
    return train(concepts[0], select(concepts[0])[0])[0]


@pytest.fixture(scope="module")
def two(select, train, concepts, one):
    return train(concepts[1], select(concepts[1], memory=one)[0], memory=one)[0]


def test_what_is_protected_is_shown_and_forecast(select, concepts, one):
    plan, image, text = select(concepts[1], memory=one, keep="a favourite prompt\nanother")
    assert plan.method.name == "directions"
    prompts = plan.prepared.protected.prompts
    assert "a favourite prompt" in prompts and any("<my-fox>" in p for p in prompts) and "" in prompts
    assert "forecast, with a made-up word" in text and "`<my-fox>` hears" in text
    assert image.ndim == 4 and image.shape[-1] == 3


def test_it_learns_without_a_prior_and_tells_what_moves(select, train, concepts, one):
    learned = one.concepts[0]
    assert learned.method == "directions" and "prior" not in learned.losses
    assert learned.settings["train"]["prior"] == "none"
    assert learned.change.answers.abs().max() > 0 and len(learned.change.gains)
    assert any("<my-fox>" in caption for caption in learned.captions)
    memory, _, text = train(concepts[0], select(concepts[0])[0])
    assert "taken from disk" in text and memory.digest() == one.digest()
    assert "keys and values of its class word move by" in text, "told of results from disk too"


def test_given_class_images_are_used_when_they_are_connected(select, train, concepts):
    plan = select(concepts[0])[0]
    memory, *_ = train(concepts[0], plan, class_images=torch.rand(2, 64, 64, 3), seed=9)
    assert "prior" in memory.concepts[0].losses


def test_another_memory_than_what_was_protected_is_refused(select, train, concepts, one):
    plan = select(concepts[1])[0]
    with pytest.raises(
        ValueError, match="prepared for a memory with none, but training goes on from one with <my-fox>"
    ):
        train(concepts[1], plan, memory=one)


def test_both_kinds_stand_in_one_memory(select, train, concepts, one, run, models):
    plan = select(concepts[1], memory=one, what_may_move="neurons", calibration_prompts=4)[0]
    both = train(concepts[1], plan, memory=one, neuron_lr=1e-3)[0]
    assert [c.method for c in both.concepts] == ["directions", "cns"]
    before, after = both.stage(1).changes(), one.changes()
    assert all(torch.equal(before[name], after[name]) for name in after)
    model, _ = run("ApplyPersonalizedUNet", **models, memory=both)
    assert model.patches


def weights(comfy, model, memory):
    comfy.model_management.load_models_gpu([model])
    modules = model.model.diffusion_model
    return {n: modules.get_submodule(n).weight.detach().clone() for n in memory.layout.names}


def test_weights_are_base_plus_the_sum_and_go_back(comfy, run, models, two, untouched):
    base = weights(comfy, models["model"], two)
    first, second = two.concepts
    for strengths, factors in (("", (1.0, 1.0)), ("<my-fox> 0.5", (0.5, 1.0)), ("my jug: 0", (1.0, 0.0))):
        model, _ = run("ApplyPersonalizedUNet", **models, memory=two, strength=0.5, strengths=strengths)
        seen = weights(comfy, model, two)
        for name in two.layout.names:
            (a, b), (c, d) = first.change.added(name), second.change.added(name)
            added = 0.5 * (factors[0] * a @ b + factors[1] * c @ d)
            torch.testing.assert_close(
                seen[name].float(), (base[name].float() + added).to(base[name].dtype).float()
            )
    again = weights(comfy, models["model"], two)
    assert all(torch.equal(again[n], base[n]) for n in base)


def test_a_concept_is_taken_out_exactly(comfy, run, models, two, one):
    rest = two.without("my jug")
    outs = [run("ApplyPersonalizedUNet", **models, memory=m)[0] for m in (rest, one)]
    a, b = (weights(comfy, model, two) for model in outs)
    assert all(torch.equal(a[n], b[n]) for n in a)
    weights(comfy, models["model"], two)


def test_resuming_gives_the_same_memory(select, train, concepts, one, comfy, monkeypatch):
    plan = select(concepts[1], memory=one)[0]
    whole = train(concepts[1], plan, memory=one, seed=21)[0]
    from ComfyUI_CNS.cns_core.host import paths
    from ComfyUI_CNS.cns_core.training import ConceptTrainer

    newest = max(paths.work_folder("runs").rglob("*.safetensors"), key=lambda p: p.stat().st_mtime)
    newest.unlink()

    class Stop(Exception):
        pass

    plain = ConceptTrainer.run

    def stopping(self, on_step, stop_asked):
        def stop(report):
            on_step(report)
            if report.step == 3:
                raise Stop

        plain(self, stop, stop_asked)

    monkeypatch.setattr(ConceptTrainer, "run", stopping)
    with pytest.raises(Stop):
        train(concepts[1], plan, memory=one, seed=21)
    monkeypatch.undo()
    again, _, text = train(concepts[1], plan, memory=one, seed=21)
    assert "Resumed after step 3" in text
    assert again.digest() == whole.digest()


def test_moments_are_kept(select, concepts):
    from ComfyUI_CNS.cns_core.host import paths

    plan = select(concepts[0], general_prompts=25)[0]
    kept = max(paths.work_folder("moments").glob("*.safetensors"), key=lambda p: p.stat().st_mtime)
    inode = kept.stat().st_ino
    again = select(concepts[0], general_prompts=25)[0]
    assert torch.equal(plan.prepared.protected.general, again.prepared.protected.general)
    assert kept.stat().st_ino == inode  # a file that is written again is another one


def test_a_kept_prompt_with_a_learned_token_is_read_with_that_memory(select, train, concepts, one):
    keep = "<my-fox> in a favourite place"
    with_fox = select(concepts[1], memory=one, keep=keep)[0].prepared.protected.general
    without = select(concepts[1], keep=keep)[0].prepared.protected.general
    assert not torch.allclose(with_fox, without)


def test_an_overlong_prompt_to_keep_is_refused_before_anything_is_read(select, concepts):
    with pytest.raises(ValueError, match=r"prompt has 9\d tokens; at most 75 fit. Shorten: 'very very"):
        select(concepts[0], keep="very " * 90 + "long", general_prompts=26)


def test_a_graph_from_before_there_was_a_choice_selects_neurons(nodes, models, concepts):
    with torch.inference_mode():
        plan = (
            nodes["SelectConceptNeurons"]
            .execute(
                **models,
                concept=concepts[0],
                select_by="budget",
                budget_percent=6.5,
                top_percent=30.0,
                tokens="caption words",
                calibration_prompts=4,
            )
            .args[0]
        )
    assert plan.method.name == "cns"


def test_neurons_can_be_guarded(select, train, concepts):
    plan, _, text = select(concepts[0], what_may_move="guarded neurons", calibration_prompts=4)
    memory, _, told = train(concepts[0], plan, neuron_lr=1e-3, seed=3)
    assert {"L_reg", "guard", "prior", "diffusion"} == set(memory.concepts[0].losses)
    assert "keys and values of general prompts move by" in told and "concept neurons" in text
    assert plan.settings.keep == "" and plan.settings.select_by == "budget"
