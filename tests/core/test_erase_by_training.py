"""Erasures that train: their formulas on the toy U-Net, what they leave, and stopping."""

import dataclasses
from collections import Counter

import pytest
import torch

from cns_core.checkpoint import CheckpointError, load_state, save_state
from cns_core.concept import ERASURE
from cns_core.erasures import ERASURES, TRAINED
from cns_core.erasures.adaptation import Elastic, ErasingAdaptation, Guard
from cns_core.erasures.by_training import KEPT, NOTHING, Retained, look
from cns_core.erasures.difference import Difference, MaskedDifference
from cns_core.erasures.esd import Away
from cns_core.erasures.scenes import of_fallback, of_kept, of_words, of_words_as_any
from cns_core.erasures.wording import TEMPLATES, ToErase, named
from cns_core.forget import forget
from cns_core.identity import ModelIdentity
from cns_core.interference import GENERAL, interference
from cns_core.memory import ConceptMemory, LearnedConcept
from cns_core.memory_file import load_memory, save_memory
from cns_core.method import Taught
from cns_core.methods.cns.masks import NeuronMask
from cns_core.methods.directions.change import DirectionsChange
from cns_core.methods.sensitivity import Sensitivity
from cns_core.moments import second_moment
from cns_core.objective import Objective
from cns_core.priors import NoisedBatch, NoPrior
from cns_core.projections import ProjectionLayout
from cns_core.settings import TrainSettings
from cns_core.staged import Stage, StagedWeights
from cns_core.training import ConceptTrainer, LatentImage, TrainingData
from cns_core.weight_scopes import ATTENTION, state_dict_key

BASE = ModelIdentity("SD1", "ab" * 32)
CPU = torch.device("cpu")


class Stop(BaseException):
    """Stands for the host's Cancel."""


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def images(word, other, count=3, seed=0):
    return tuple(
        LatentImage(random(2, 4, 4, seed=seed + i), (f"a photo of {word}",), (f"a photo of {other}",))
        for i in range(count)
    )


WORDS, KEPT_IMAGES = images("word2", "word5"), images("word7", "word7", seed=50)


@pytest.fixture(params=list(TRAINED))
def by(request):
    return TRAINED[request.param]


def settings_of(by, **given):
    known = {f.name for f in dataclasses.fields(by.Settings)}
    chosen = {"weight_lr": 1e-2, "steps": 6, "look_steps": 3, "resolution": 64, "elastic": 10.0, **given}
    return by.Settings(**{n: v for n, v in chosen.items() if n in known})


@pytest.fixture
def trainer(toy, by):
    """Of one erasure, with all that holds it back."""

    def start(resume=None, retain=1.0, guard=10.0, **given):
        settings = settings_of(by, retain=retain, guard=guard, **given)
        looked = None
        if by.looks_at != NOTHING:
            of = KEPT_IMAGES if by.looks_at == KEPT else WORDS
            looked = look(toy, toy.layout, of, settings.look_steps, 2, 0, lambda done, total: None)
        adaptation = by.start(toy.layout, toy.projections(), looked, a_guard(toy, guard), settings, CPU)
        prior = Retained(KEPT_IMAGES) if retain else NoPrior()
        train = TrainSettings(steps=settings.steps, batch_size=2, prior_weight=retain)
        objective = Objective(by.goal(settings), prior)
        return ConceptTrainer(toy, TrainingData(WORDS), adaptation, {}, train, resume, objective)

    return start


def a_guard(toy, weight):
    features = toy.encode([image.captions[0] for image in KEPT_IMAGES], None).cross
    moment = second_moment(features, 24)
    gram = sum((w.T @ w).double() for w in toy.projections().values())
    return Guard(weight, moment.float(), float((gram * moment).sum()), toy.layout)


def predicted(toy, prompt, change=None, seed=5):
    z, t = random(1, 2, 4, 4, seed=seed), torch.tensor([20])
    functions = {}
    if change is not None:
        functions = {n: lambda w, n=n: w + change.difference(n).float() for n in change.layout.names}
    with torch.no_grad(), toy.weights_patched(functions):
        return toy.predict(z, t, toy.encode([prompt], None))


# --- formulas


@pytest.mark.parametrize("eta", [0.0, 1.0, 2.0])
def test_esd_leads_away_from_the_words(toy, eta):
    """eta times as far as from the words to what they fall back on; 1 ends there."""

    class Teacher:
        levels = toy.levels
        frozen_text = staticmethod(lambda prompts: toy.encode(prompts, None))
        untrained_prediction = staticmethod(toy.predict)

    z, t = random(2, 2, 4, 4), torch.tensor([5, 30])
    batch = NoisedBatch(["a photo of word2"] * 2, ["a photo of word5"] * 2, z, z, t, z, [None] * 2)
    word, other = (toy.predict(z, t, toy.encode([f"a photo of {w}"] * 2, None)) for w in ("word2", "word5"))
    found = Away(eta).target(batch, Teacher())
    torch.testing.assert_close(found, word * (1 - eta) + other * eta)


def test_training_goes_where_each_formula_says(trainer, toy, by):
    """After many steps with nothing that holds it back, the words are predicted as the method asks."""
    one = trainer(retain=0.0, guard=0.0, steps=300, elastic=0.0, salient_percent=100.0, weight_lr=3e-3)
    one.run()
    change = one.adaptation.learned()
    word, other = predicted(toy, "a photo of word2"), predicted(toy, "a photo of word5")
    after = predicted(toy, "a photo of word2", change)
    if by.name == "selective amnesia":
        first, last = (
            sum(part) / 30 for part in (one.losses["diffusion"][:30], one.losses["diffusion"][-30:])
        )
        assert last < 0.9 * first, "pictures of the others are learned under the words"
        return
    goal = {"esd": 2 * other - word, "salun": other}[by.name]
    assert (after - goal).norm() < 0.5 * (word - goal).norm()


def test_look_sums_the_gradients_of_the_pictures_own_loss(toy):
    """With one picture and one step it is one gradient, by autograd on the weights themselves."""
    steps, layout = 4, toy.layout
    found = look(toy, layout, WORDS[:1], steps, 1, 3, lambda done, total: None)
    generator = torch.Generator().manual_seed(3)
    total = dict.fromkeys(layout.names, 0.0)
    squares = dict.fromkeys(layout.names, 0.0)
    for _ in range(steps):
        torch.randint(1, (1,), generator=generator), torch.randint(1, (1,), generator=generator)
        noise = torch.randn(1, 2, 4, 4, generator=generator)
        t = torch.randint(50, (1,), generator=generator)
        leaves = {n: w.clone().requires_grad_() for n, w in toy.projections().items()}
        with toy.weights_patched({n: lambda w, leaf=leaf: leaf for n, leaf in leaves.items()}):
            z_t = toy.levels.add_noise(WORDS[0].latents[None], noise, t)
            (toy.predict(z_t, t, toy.encode(["a photo of word2"], None)) - noise).square().mean().backward()
        for n, leaf in leaves.items():
            total[n] = total[n] + leaf.grad
            squares[n] = squares[n] + leaf.grad.square() / steps
    for n in layout.names:
        torch.testing.assert_close(found.sums[n], total[n], atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(found.squares[n], squares[n], atol=1e-9, rtol=1e-4)


def test_look_sees_weights_that_are_no_matrices(toy, toy_material):
    layout = toy_material(toy, ["a photo of word1"], 2).weights_in("the whole U-Net")
    found = look(toy, layout, WORDS, 1, 2, 0, lambda done, total: None)
    bias = next(n for n in layout.names if n.endswith("norm.bias"))
    assert found.sums[bias].shape == layout.shape(bias) and bool(found.sums[bias].any())


def test_salun_moves_the_entries_with_the_largest_gradients_alone(toy):
    by = TRAINED["salun"]
    looked = look(toy, toy.layout, WORDS, 3, 2, 0, lambda done, total: None)
    adaptation = by.start(toy.layout, {}, looked, None, settings_of(by, salient_percent=25.0), CPU)
    with torch.no_grad():
        for difference in adaptation.differences.values():
            difference.fill_(1.0)
    change = adaptation.learned()
    flat = torch.cat([looked.sums[n].abs().reshape(-1) for n in toy.layout.names])
    moved = torch.cat([change.moved(n).reshape(-1) for n in toy.layout.names])
    assert int(moved.sum()) == round(0.25 * toy.layout.total)
    assert flat[moved].min() >= flat[~moved].max()
    for name in toy.layout.names:
        assert torch.equal(change.difference(name).bool(), change.moved(name))


def test_elastic_weighs_squares_by_how_much_they_matter():
    squares = {"a": torch.tensor([[1.0, 3.0]]), "b": torch.tensor([[4.0], [0.0]])}  # of mean 2
    differences = {"a": torch.tensor([[2.0, 1.0]]), "b": torch.tensor([[0.5], [9.0]])}
    found = Elastic.of_squares(3.0, squares, size=10.0).of(differences)
    assert float(found) == pytest.approx(3 / 10 * (0.5 * 4 + 1.5 * 1 + 2.0 * 0.25))
    with pytest.raises(ValueError, match=r"No weight had a gradient.*look steps"):
        Elastic.of_squares(1.0, {"a": torch.zeros(1, 1)}, 1.0)


def test_the_guard_is_the_squared_share_by_which_kept_keys_and_values_move(toy):
    features = toy.encode([image.captions[0] for image in KEPT_IMAGES], None).cross
    moved = {n: random(*w.shape, seed=i) for i, (n, w) in enumerate(toy.projections().items())}
    heard = sum((features @ d.T).double().square().sum() for d in moved.values())
    whole = sum((features @ w.T).double().square().sum() for w in toy.projections().values())
    elsewhere = {"somewhere.to_q": torch.ones(3, 3)}
    found = a_guard(toy, 2.0).of({**moved, **elsewhere})
    assert float(found) == pytest.approx(float(2 * heard / whole), rel=1e-4)


def test_what_is_kept_moves_less_for_retain_and_guard(trainer, toy, by):
    """Of what the words move, after the same steps."""

    def share(**how):
        one = trainer(steps=60, elastic=0.0, weight_lr=3e-3, **how)
        one.run()
        change = one.adaptation.learned()

        def moved(prompt):
            return (predicted(toy, prompt, change) - predicted(toy, prompt)).norm()

        return float(moved("a photo of word7") / moved("a photo of word2"))

    free = share(retain=0.0, guard=0.0)
    assert share(retain=5.0, guard=0.0) < 0.9 * free
    assert share(retain=0.0, guard=100.0) < 0.9 * free


def test_it_is_measured_against_the_model_as_the_memory_left_it():
    layout = ProjectionLayout(("a.to_k",), ((3, 4),))
    adaptation = ErasingAdaptation(layout, 1.0, "cpu")
    with torch.no_grad():
        adaptation.differences["a.to_k"].fill_(2.0)
    weights, before = StagedWeights(adaptation.weight_functions(), {}), random(3, 4)
    weight_of = weights.functions()["a.to_k"]
    assert torch.equal(weight_of(before), before + 2)
    with weights.shown(Stage.UNTOUCHED):
        assert weight_of(before) is before
    assert set(adaptation.penalties()) == set()


# --- in the loop


def test_the_model_is_bit_for_bit_the_same(trainer, toy):
    before = {n: p.clone() for n, p in toy.unet.state_dict().items()}
    one = trainer()
    one.run()
    assert all(torch.equal(p, before[n]) for n, p in toy.unet.state_dict().items())
    expected = {"diffusion", "retain", "kept"} | ({"elastic"} & set(one.adaptation.penalties()))
    assert set(one.losses) == expected and all(len(values) == 6 for values in one.losses.values())


def test_one_that_was_stopped_ends_as_one_that_was_not(trainer, tmp_path):
    whole = trainer()
    whole.run()

    def stop(report):
        if report.step == 3:
            raise Stop

    first = trainer()
    with pytest.raises(Stop):
        first.run(stop)
    save_state(tmp_path / "c.safetensors", first.state(), "key")
    second = trainer(resume=load_state(tmp_path / "c.safetensors", "key"))
    assert second.step == 3
    second.run()
    expected, found = (t.adaptation.learned().tensors() for t in (whole, second))
    assert all(torch.equal(found[n], tensor) for n, tensor in expected.items())
    assert second.losses == whole.losses


def test_a_checkpoint_of_another_is_refused(trainer, by):
    state = trainer().state()
    state.adaptation.pop(next(iter(state.adaptation)))
    with pytest.raises(CheckpointError, match="belongs to another run"):
        trainer(resume=state)


# --- what is left


D = 6
LAYOUT = ProjectionLayout(("a.to_k", "a.to_v"), ((5, D), (4, D)))
WIDE = ProjectionLayout(("a.to_k", "b.conv"), ((5, D), (3, 8)))


def dense(layout=LAYOUT, seed=0):
    changes = {n: random(*s, seed=seed + i).half() for i, (n, s, _) in enumerate(layout.slices())}
    return Difference(layout, changes)


def masked(seed=0):
    masks = {n: random(*s, seed=seed + 20 + i) > 0.3 for i, (n, s, _) in enumerate(LAYOUT.slices())}
    mask = NeuronMask.from_dense(LAYOUT, masks)
    return MaskedDifference(mask, random(mask.count(), seed=seed).half())


def entry(change, word="leopard", method="esd"):
    what = ToErase.of(word, "")
    losses = {"diffusion": torch.ones(3), "kept": torch.zeros(3)}
    captions, settings = what.captions(), {"erase": {"words": [word]}}
    return LearnedConcept(
        what.name,
        "",
        "",
        ERASURE,
        captions,
        method,
        change,
        {},
        settings,
        losses,
        "2026-01-01T00:00:00+00:00",
    )


def learned(seed):
    change = DirectionsChange(LAYOUT, random(9, 2, seed=seed).half(), random(2, D, seed=seed), torch.ones(2))
    vectors = {"clip_l": torch.ones(1, 4)}
    return LearnedConcept(
        f"c{seed}",
        f"<c{seed}>",
        "dog",
        "subject",
        (f"a <c{seed}>",),
        "directions",
        change,
        vectors,
        {},
        {},
        "",
    )


def memory(*concepts):
    return ConceptMemory(BASE, LAYOUT, concepts)


@pytest.mark.parametrize("change", [dense(), masked(), dense(WIDE)], ids=["dense", "masked", "wide"])
def test_it_is_a_term_of_a_sum(change):
    before, after = memory(learned(3), learned(4)), memory(learned(3), entry(change), learned(4))
    plain, laid = before.laid(), after.laid()
    for name in after.whole.names:
        expected = change.difference(name).float() if name in change.layout else 0
        if name in plain:
            expected = expected + plain[name].in_full()
        torch.testing.assert_close(laid[name].in_full(), expected, atol=1e-6, rtol=0)
    half = after.laid({"without leopard": 0.5})
    for name in change.layout.names:
        less = laid[name].in_full() - half[name].in_full()
        torch.testing.assert_close(less, 0.5 * change.difference(name).float(), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("change", [dense(), masked(), dense(WIDE)], ids=["dense", "masked", "wide"])
def test_forgetting_it_or_what_was_learned_around_it_leaves_no_rest(change):
    whole = memory(learned(3), entry(change), learned(4))
    for gone, rest in (
        ("without leopard", memory(learned(3), learned(4))),
        ("c3", memory(entry(change), learned(4))),
        ("c4", memory(learned(3), entry(change))),
    ):
        done = forget(whole, gone)
        assert done.exact and done.memory.digest() == rest.digest()
        expected = rest.laid()
        assert all(
            torch.equal(laid.in_full(), expected[n].in_full()) for n, laid in done.memory.laid().items()
        )


@pytest.mark.parametrize(
    "change, method", [(dense(), "esd"), (masked(), "salun"), (dense(WIDE), "selective amnesia")]
)
def test_a_file_keeps_it(tmp_path, change, method):
    whole = memory(learned(3), entry(change, method=method), learned(4))
    save_memory(tmp_path / "m.safetensors", whole)
    again = load_memory(tmp_path / "m.safetensors")
    assert again.digest() == whole.digest() and again.summary() == whole.summary()
    assert again.concepts[1].losses.keys() == {"diffusion", "kept"}
    assert all(torch.equal(c, whole.changes()[n]) for n, c in again.changes().items())


@pytest.mark.parametrize(
    "method, tensors, message",
    [
        ("esd", {"a.to_k": torch.zeros(5, D).half()}, "a.to_v is None"),
        ("esd", {n: torch.zeros(s) for n, s, _ in LAYOUT.slices()}, "torch.float32"),
        (
            "selective amnesia",
            {n: torch.full(s, torch.inf).half() for n, s, _ in LAYOUT.slices()},
            "not finite",
        ),
        ("salun", {"values": torch.zeros(1).half()}, "expected mask and values"),
        ("salun", {"mask": torch.zeros(2, dtype=torch.uint8), "values": torch.zeros(0).half()}, "Mask bits"),
    ],
)
def test_forged_tensors(method, tensors, message):
    with pytest.raises(ValueError, match=message):
        ERASURES[method].read(LAYOUT, tensors)


@pytest.mark.parametrize("make", [dense, masked])
def test_two_are_one_when_it_is_carried_on(make):
    both = make().refined(make(seed=7), lambda name: torch.zeros(LAYOUT.shape(name), dtype=torch.bool))
    for name in LAYOUT.names:
        expected = make().difference(name).float() + make(seed=7).difference(name).float()
        torch.testing.assert_close(both.difference(name).float(), expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("change", [dense(), masked(), dense(WIDE)], ids=["dense", "masked", "wide"])
def test_how_far_it_moves_others_is_told(change):
    rows = random(7, D, seed=9).double()
    gram = torch.eye(D, dtype=torch.float64)
    found = interference(memory(entry(change)), ["without leopard"], {GENERAL: rows.T @ rows}, gram)
    moved = sum(
        (rows @ change.difference(n).double().T).square().sum() for n in LAYOUT.names if n in change.layout
    )
    expected = float(moved / rows.square().sum()) ** 0.5
    assert found.moves["without leopard", GENERAL] == pytest.approx(expected, rel=1e-3)


def test_sensitivity_of_a_convolution_is_a_matrix():
    layout = ProjectionLayout(("conv",), ((2, 12),))
    seen, weight = Sensitivity(layout, True, "cpu"), random(2, 3, 2, 2)
    (seen.watched("conv", weight).square().sum() / 2).backward()
    torch.testing.assert_close(seen.end_step()["conv"], weight.square().view(2, 12))


def test_every_scope_can_be_erased_on(toy, toy_material):
    layout = toy_material(toy, ["a photo of word1"], 2).weights_in(ATTENTION)
    by = TRAINED["esd"]
    settings = settings_of(by, steps=2, weights=ATTENTION)
    adaptation = by.start(layout, {}, None, a_guard(toy, 1.0), settings, CPU)
    train = TrainSettings(steps=2, batch_size=1)
    objective = Objective(by.goal(settings), Retained(KEPT_IMAGES))
    ConceptTrainer(toy, TrainingData(WORDS), adaptation, {}, train, None, objective).run()
    change = adaptation.learned()
    assert all(bool(change.difference(name).any()) for name in layout.names)
    assert all(state_dict_key(name) in toy.weights for name in layout.names)


# --- which pictures


def test_pictures_of_the_words_go_by_all_wordings():
    found = of_words(ToErase.of("leopard\npuma", "cat"), 2 * len(TEMPLATES) + 2)
    assert [scene.prompt for scene in found[:4]] == ["leopard", "puma", "a leopard", "a puma"]
    assert found[-2].prompt == "leopard"
    assert found[0].captions == named("leopard") and found[0].others == named("cat")
    empty = of_words(ToErase.of("leopard", ""), 1)[0]
    assert empty.others[0] == "" and len(empty.others) == len(empty.captions)


def test_pictures_of_what_is_there_instead_are_called_by_the_words():
    found = of_fallback(ToErase.of("leopard", "cat"), 3)
    assert [(s.prompt, s.captions) for s in found][1] == ("a cat", ("a leopard",))


def test_random_things_are_others_and_the_same_by_seed():
    what = ToErase.of("leopard", "")
    first, again, other = (of_words_as_any(what, 4, seed) for seed in (0, 0, 1))
    assert first == again != other
    said = Counter(caption for scene in first for caption in scene.others)
    assert len(said) > 20 and not any("leopard" in caption for caption in said)


def test_pictures_of_what_is_kept_take_turns_and_never_name_the_words():
    taught = (
        Taught("<my-cat>", "cat", ("a <my-cat>", "<my-cat> and a leopard")),
        Taught("without x", "", ("x",)),
    )
    found = [s.prompt for s in of_kept(ToErase.of("leopard", "dog"), ["cheetah"], taught, 12)]
    assert found[:6] == ["", "dog", "cheetah", "a <my-cat>", "x", "a cat"]
    assert found[7:11] == ["a dog", "a cheetah", "a <my-cat>", "x"]
    assert not any("leopard" in prompt for prompt in found)


# --- settings


@pytest.mark.parametrize(
    "given, message",
    [
        ({"resolution": 100}, "resolution is 100, expected a multiple of 64"),
        ({"weights": "everything"}, "choose one of: keys and values"),
        ({"steps": 0}, "steps is 0"),
        ({"guard": float("nan")}, "guard is nan"),
    ],
)
def test_settings_that_make_no_sense(by, given, message):
    with pytest.raises(ValueError, match=message):
        by.Settings(**given)


def test_a_rate_of_zero_is_told(trainer):
    with pytest.raises(ValueError, match="nothing would be learned; set the weight learning rate above 0"):
        trainer(weight_lr=0.0)
