"""What every method in the registry keeps to: the loop, the memory and drawing rely on it."""

import operator

import pytest
import torch

from cns_core.checkpoint import load_state, save_state
from cns_core.identity import ModelIdentity
from cns_core.memory import ConceptMemory, LearnedConcept
from cns_core.memory_file import load_memory, save_memory
from cns_core.method import Factored
from cns_core.methods import METHODS
from cns_core.refine import Refining
from cns_core.settings import TrainSettings, check, described
from cns_core.staged import Stage
from cns_core.training import ConceptTrainer, LatentImage, TrainingData
from cns_core.weight_scopes import EVERYTHING, state_dict_key, weights_in
from cns_core.within import start as begin

BASE = ModelIdentity("toy", "0")
VECTORS = {"toy": torch.linspace(-1, 1, 24)[None]}
RATES = {"neuron_lr": 1e-2, "weight_lr": 1e-2, "direction_lr": 1e-2, "least_gain": 0.0, "rank": 4}


class Stop(BaseException):
    """Stands for the host's Cancel."""


@pytest.fixture(params=list(METHODS))
def method(request):
    return METHODS[request.param]


@pytest.fixture
def learner(toy, toy_material, method):
    """Starts learning one more concept by the method, on top of a memory."""

    def start(memory=None, resume=None, seed=0, steps=6, refining=None, before=None):
        memory = refining.others if refining else memory or ConceptMemory(BASE, toy.layout)
        material = toy_material(toy, ["a photo of word1", "the word1"], 6, memory)
        known = described(method.Selection)
        settings = method.Selection(**{k: v for k, v in {"budget_percent": 6.0}.items() if k in known})
        prepared = method.prepare(material, settings)
        rates = {k: v for k, v in RATES.items() if k in described(method.Training)}
        earlier = refining or memory
        adaptation = begin(method, prepared, earlier, method.Training(**rates), torch.device("cpu"))
        g = torch.Generator().manual_seed(seed + 1)
        image = LatentImage(torch.randn(2, 4, 4, generator=g), ("a photo of <new>",), ("a photo of word1",))
        train = TrainSettings(steps=steps, batch_size=2, token_lr=1e-2, seed=seed)
        return ConceptTrainer(
            toy, TrainingData((image,), before=before or {}), adaptation, VECTORS, train, resume
        )

    return start


def learned(learner, method, memory, number):
    trainer = learner(memory, seed=number)
    trainer.run()
    return memory.with_learned(as_learned(trainer, method, number))


def as_learned(trainer, method, number):
    vectors, change = trainer.state().token_vectors, trainer.adaptation.learned()
    losses = {name: torch.tensor(values) for name, values in trainer.losses.items()}
    name = f"c{number}"
    return LearnedConcept(
        name,
        f"<{name}>",
        "word1",
        "subject",
        (f"a photo of <{name}>",),
        method.name,
        change,
        vectors,
        {},
        losses,
        "now",
    )


@pytest.fixture
def two(learner, method, toy):
    """A memory of two concepts."""
    memory = ConceptMemory(BASE, toy.layout)
    for number in range(2):
        memory = learned(learner, method, memory, number)
    return memory


def patched(toy, functions):
    """All of the toy's weights as matrices, with these functions in the place of some."""
    names = weights_in({n: p.shape for n, p in toy.unet.named_parameters()}, EVERYTHING).names
    with toy.weights_patched(functions):
        found = {n: operator.attrgetter(state_dict_key(n))(toy.unet).detach().clone() for n in names}
    return {n: weight.reshape(len(weight), -1) for n, weight in found.items()}


def test_its_settings_lie_in_their_own_ranges(method):
    for settings in (method.Selection(), method.Training()):
        check(settings)
        for name, (default, what) in described(type(settings)).items():
            assert what.help.endswith("."), name
            assert default in what.choices or not what.choices, name


def test_the_model_is_bit_identical_afterwards(learner, toy):
    before = {n: p.clone() for n, p in toy.unet.state_dict().items()}
    table = toy.table.weight.clone()
    learner().run()
    assert torch.equal(toy.table.weight, table)
    after = toy.unet.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(p, before[n]) for n, p in after.items())


def test_a_function_that_may_be_taken_apart_is_the_sum_of_its_parts(learner, toy, two):
    trainer = learner(two)
    trainer.run()
    functions = trainer.weights.functions()
    parted = {name: function for name, function in functions.items() if isinstance(function, Factored)}
    weights = {n: p.detach() for n, p in toy.unet.named_parameters()}
    products = 0
    for name, function in parted.items():
        weight = weights[state_dict_key(name)]
        rest = weight if function.rest is None else function.rest(weight)
        for up, down in function.products():
            products += 1
            rest = rest + up @ down
        torch.testing.assert_close(function(weight), rest)
        with trainer.weights.shown(Stage.UNTOUCHED):
            assert not function.products() and (function.rest is None or function.rest(weight) is weight)
    assert bool(products) == bool(parted)


def test_something_is_learned(learner):
    trainer = learner()
    trainer.run()
    assert not torch.equal(trainer.state().token_vectors["toy"], VECTORS["toy"])
    for group in trainer.adaptation.parameter_groups():
        assert any(parameter.abs().max() > 0 for parameter in group.parameters)


def test_resuming_equals_never_stopping_bit_for_bit(learner, two, tmp_path):
    whole = learner(two, seed=3)
    whole.run()
    first = learner(two, seed=3)

    def stop(report):
        if report.step == 3:
            raise Stop

    with pytest.raises(Stop):
        first.run(stop)
    save_state(tmp_path / "c.safetensors", first.state(), "key")
    second = learner(two, load_state(tmp_path / "c.safetensors", "key"), seed=3)
    second.run()
    a, b = whole.state(), second.state()
    for field in ("adaptation", "token_vectors", "optimizer"):
        x, y = getattr(a, field), getattr(b, field)
        assert x.keys() == y.keys() and all(torch.equal(x[n], y[n]) for n in x)
    assert a.losses == b.losses and torch.equal(a.generator, b.generator)


def test_each_stage_can_be_shown_after_training(learner, toy, two):
    trainer = learner(two, before=two.changes())
    trainer.run()
    plain, functions = patched(toy, {}), trainer.weights.functions()
    now = patched(toy, trainer.adaptation.weight_functions())
    with trainer.weights.shown(Stage.UNTOUCHED):
        untouched = patched(toy, functions)
    with trainer.weights.shown(Stage.BEFORE):
        before = patched(toy, functions)
    again = patched(toy, functions)
    assert all(torch.equal(untouched[n], plain[n]) for n in plain)
    assert all(torch.equal(again[n], now[n]) for n in plain)
    for name, change in two.changes().items():
        assert torch.equal(before[name], plain[name] + change.float()), name


def test_it_starts_where_earlier_concepts_ended(learner, toy, two):
    started = patched(toy, learner(two).adaptation.weight_functions())
    plain = patched(toy, {})
    for name, laid in two.laid().items():
        expected = plain[name] + laid.in_full()
        torch.testing.assert_close(started[name], expected, atol=2e-4, rtol=1e-3)  # of float16


def test_what_was_trained_is_what_is_drawn(learner, toy, method, two):
    trainer = learner(two)
    trainer.run()
    change, plain = trainer.adaptation.learned(), patched(toy, {})
    trained = patched(toy, trainer.adaptation.weight_functions())
    for name, before in two.changes().items():
        drawn = plain[name] + change.lay(name, before).float()
        torch.testing.assert_close(drawn, trained[name], atol=2e-4, rtol=1e-3)  # of float16
        untouched = ~(change.moved(name) | two.moved(name))
        assert torch.equal(drawn[untouched], plain[name][untouched])


def test_a_concept_learned_further_is_drawn_as_it_was_trained(learner, toy, method, two, tmp_path):
    refining = Refining(two, two.concepts[0])
    trainer = learner(refining=refining, seed=5)
    started, plain = patched(toy, trainer.adaptation.weight_functions()), patched(toy, {})
    for name, laid in two.laid().items():
        expected = plain[name] + laid.in_full()  # it goes on from all that is there
        torch.testing.assert_close(started[name], expected, atol=2e-4, rtol=1e-3)  # of float16
    trainer.run()
    after = refining.result(as_learned(trainer, method, 0))
    assert after.names() == ["c1", "c0"] and len(after.concepts[1].losses["diffusion"]) == 12
    trained = patched(toy, trainer.adaptation.weight_functions())
    for name, change in after.changes().items():
        torch.testing.assert_close(plain[name] + change.float(), trained[name], atol=4e-4, rtol=2e-3)
    save_memory(tmp_path / "m.safetensors", after)
    assert load_memory(tmp_path / "m.safetensors").digest() == after.digest()


def test_any_stage_is_exact_and_a_file_keeps_all_of_it(two, tmp_path):
    path = tmp_path / "m.safetensors"
    save_memory(path, two)
    again = load_memory(path)
    assert again.digest() == two.digest() and again.summary() == two.summary()
    for stage in (0, 1, 2):
        expected = two.stage(stage).changes()
        assert all(torch.equal(c, expected[n]) for n, c in again.stage(stage).changes().items())


def test_tensors_of_something_else_are_refused(method, two, toy):
    wrong = {"mask": torch.zeros(3, dtype=torch.uint8), "something": torch.zeros(2)}
    with pytest.raises(ValueError):
        method.read(toy.layout, wrong)


def test_what_may_move_is_told(learner, method, toy_material, toy, two):
    known = described(method.Selection)
    settings = method.Selection(**{k: v for k, v in {"budget_percent": 6.0}.items() if k in known})
    prepared = method.prepare(toy_material(toy, ["a photo of word1"], 6, two), settings)
    shares = prepared.moving()
    assert list(shares) == list(prepared.layout.names) and all(0 <= s <= 1 for s in shares.values())
    earlier = two.left()
    assert prepared.report(10_000, earlier).startswith("- ")
    picture = prepared.picture(earlier)
    assert picture.ndim == 4 and picture.shape[0] == 1 and picture.shape[3] == 3
    assert prepared.outcome(two.concepts[-1].change)[:2] in ("", "- ")
