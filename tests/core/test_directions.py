"""Guarded directions on a toy: what is found, what is held still, what is told."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from cns_core.identity import ModelIdentity
from cns_core.memory import ConceptMemory, LearnedConcept
from cns_core.method import Factored
from cns_core.methods import METHODS
from cns_core.methods.directions.change import DirectionsChange
from cns_core.methods.directions.find import Directions, guarded_directions
from cns_core.methods.directions.prepared import _energy_heard
from cns_core.moments import energy, second_moment
from cns_core.projections import ProjectionLayout
from cns_core.settings import TrainSettings
from cns_core.training import ConceptTrainer, LatentImage, TrainingData

DIRECTIONS = METHODS["directions"]
BASE = ModelIdentity("toy", "0")
CAPTIONS = ("a photo of word1", "the word1")
LAYOUT = ProjectionLayout(("a.to_k", "a.to_v"), ((3, 4), (2, 4)))


def moment(*rows):
    return second_moment([torch.tensor([row]) for row in rows], len(rows[0]))


# --- moments and directions


def test_a_moment_gives_the_mean_squared_effect_of_a_change():
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randn(5, 6, generator=generator) for _ in range(4)]
    change = torch.randn(3, 6, generator=generator)
    seen = torch.stack([(x @ change.T).square().sum() for x in prompts]).mean()
    assert energy(change, second_moment(prompts, 6)) == pytest.approx(float(seen), rel=1e-5)
    assert not second_moment([], 6).any()


def test_directions_solve_the_generalised_eigenproblem():
    generator = torch.Generator().manual_seed(1)
    concept, protected = (x.T @ x for x in torch.randn(2, 20, 6, generator=generator, dtype=torch.float64))
    found = guarded_directions(concept, protected, 4, 0.0)
    for u, gain in zip(found.vectors.T, found.gains, strict=True):
        torch.testing.assert_close(concept @ u, gain * (protected @ u))
    answers = found.vectors.T @ concept @ found.vectors
    torch.testing.assert_close(answers, torch.eye(4, dtype=torch.float64))
    assert torch.equal(found.gains, found.gains.sort(descending=True).values)


def test_directions_that_are_not_the_concepts_own_are_left_out():
    concept = moment([3.0, 0.0, 1.0, 0.0])
    protected = moment([0.0, 2.0, 1.0, 0.0]) + 0.1 * torch.eye(4, dtype=torch.float64)
    found = guarded_directions(concept, protected, 4, 0.0)
    assert len(found.gains) == 1, "one caption of one token has one direction; the rest is rounding"
    assert len(guarded_directions(concept, protected, 4, 2 * float(found.gains[0])).gains) == 0
    assert not guarded_directions(torch.zeros(4, 4), protected, 4, 0.0).vectors.numel()
    with pytest.raises(ValueError, match=r"energy of 0 in some direction.*Raise `floor`"):
        guarded_directions(concept, torch.zeros(4, 4), 2, 1.0)


# --- learning


@pytest.fixture
def learner(toy, toy_material):
    def start(memory=None, seed=0, steps=20, protection=None, **settings):
        memory = memory or ConceptMemory(BASE, toy.layout)
        material = toy_material(toy, CAPTIONS, 6, memory)
        prepared = DIRECTIONS.prepare(material, DIRECTIONS.Selection(**(protection or {})))
        chosen = DIRECTIONS.Training(**{"least_gain": 0.0, "direction_lr": 0.05, **settings})
        adaptation = DIRECTIONS.start(prepared, memory, chosen, torch.device("cpu"))
        generator = torch.Generator().manual_seed(seed + 1)
        latents = torch.randn(2, 4, 4, generator=generator)
        image = LatentImage(latents, ("a photo of <new>", "the <new>"), CAPTIONS)
        train = TrainSettings(steps=steps, batch_size=2, token_lr=5e-2, seed=seed, prior="none")
        vectors = {"toy": torch.linspace(-1, 1, 24)[None]}
        return prepared, ConceptTrainer(toy, TrainingData((image,)), adaptation, vectors, train)

    return start


def test_the_token_learns_alone_at_first(learner):
    _, trainer = learner(steps=10, token_first=0.4)
    answers = []
    trainer.run(lambda report: answers.append(float(trainer.adaptation.answers.detach().abs().max())))
    assert answers[:4] == [0.0] * 4 and all(answers[4:])
    assert trainer.adaptation.rate_factors(3, 10) == {}
    first, last = (trainer.adaptation.rate_factors(step, 10) for step in (4, 9))
    assert first == {"directions": 1.0, "token": 1.0}
    assert 0 < last["directions"] < 0.1


def features(toy, prompts, vectors):
    return toy.encode(prompts, vectors).cross.detach()


def moved(change, x):
    d = torch.cat(
        [change.lay(n, torch.zeros(s, dtype=torch.float16)).float() for n, s, _ in change.layout.slices()]
    )
    return float((x @ d.T).square().mean())


def test_what_is_protected_hears_little_of_what_is_learned(learner, toy):
    prepared, trainer = learner(protection={"floor": 1e-4}, directions=1)
    trainer.run()
    change = trainer.adaptation.learned()
    own = moved(change, features(toy, ["a photo of <new>", "the <new>"], trainer.vectors))
    for prompts in (["a photo of word3"], list(CAPTIONS)):
        assert moved(change, features(toy, prompts, None)) < 0.02 * own
    assert set(prepared.protected.effects(torch.zeros(1, 24))) == {"general prompts", "its class word"}
    told = prepared.outcome(change)
    assert "gains" in told and "keys and values of its class word move by" in told
    assert "have a gain below 1" not in told
    low = DirectionsChange(change.layout, change.answers, change.directions, 0 * change.gains + 0.6)
    assert "1 of them have a gain below 1: what is protected is louder" in prepared.outcome(low)


def test_the_guard_holds_answers_where_something_listens(learner):
    heard = []
    for guard in (0.0, 100.0):
        prepared, trainer = learner(guard=guard)
        trainer.run()
        change = trainer.adaptation.learned()
        heard.append(prepared.protected.effects(change.answers.float() @ change.directions))
    assert heard[1]["general prompts"] < heard[0]["general prompts"]


def test_an_earlier_concept_hears_nothing_and_goes_without_a_trace(learner, toy):
    _, trainer = learner(seed=5, directions=1)
    trainer.run()
    fields = {"kind": "subject", "method": "directions", "settings": {}, "losses": {}, "learned_at": "now"}
    state = trainer.state()
    first = LearnedConcept(
        name="first",
        token="<first>",
        class_word="word1",
        captions=("a photo of <first>",),
        change=trainer.adaptation.learned(),
        token_vectors=state.token_vectors,
        **fields,
    )
    memory = ConceptMemory(BASE, toy.layout, (first,))
    prepared, trainer = learner(memory, seed=6, directions=1)
    trainer.run()
    second = dataclasses.replace(
        first,
        name="second",
        token="<second>",
        captions=("a photo of <second>",),
        change=trainer.adaptation.learned(),
        token_vectors=trainer.state().token_vectors,
    )
    both = memory.with_learned(second)
    toy.known = {"<first>": state.token_vectors["toy"]}
    x = features(toy, ["a photo of <first>"], None)
    own = moved(second.change, features(toy, ["a photo of <new>"], trainer.vectors))
    assert moved(second.change, x) < 0.05 * own
    assert prepared.forecast.heard.keys() == {"<first>"} and "`<first>` hears" in prepared.report(1, {})
    assert "<first> move by" in prepared.outcome(second.change)
    alone = ConceptMemory(BASE, toy.layout, (second,))
    for name, laid in both.without("first").laid().items():
        assert torch.equal(laid.summed(), alone.laid()[name].summed())
    with pytest.raises(ValueError, match=r"prepared for a memory with <first>, but .* one with none"):
        prepared.check(ConceptMemory(BASE, toy.layout))
    prepared.check(memory)


def some_directions(toy, count, seed=0):
    """A memory of one concept that moves along so many directions."""
    generator = torch.Generator().manual_seed(seed)
    rows, width = sum(out for out, _ in toy.layout.shapes), toy.layout.shapes[0][1]
    answers = torch.randn(rows, count, generator=generator).half()
    directions = torch.randn(count, width, generator=generator)
    concept = LearnedConcept(
        name="first",
        token="<first>",
        class_word="word1",
        kind="subject",
        captions=("a photo of <first>",),
        method="directions",
        change=DirectionsChange(toy.layout, answers, directions, torch.ones(count)),
        token_vectors={"toy": torch.zeros(1, width)},
        settings={},
        losses={},
        learned_at="now",
    )
    return ConceptMemory(BASE, toy.layout, (concept,))


@pytest.mark.parametrize("method", ["directions", "token alone"])
@pytest.mark.parametrize(("share", "in_the_weights"), [(0.25, False), (0.75, True)])
def test_earlier_directions_take_no_new_weights_unless_they_are_many(toy, method, share, in_the_weights):
    memory = some_directions(toy, int(share * toy.layout.shapes[0][1]))
    chosen = METHODS[method]
    prepared = SimpleNamespace(layout=toy.layout, protected=None)
    if method == "directions":
        sizes = dict.fromkeys(toy.layout.names, 1.0)
        prepared = SimpleNamespace(protected=SimpleNamespace(layout=toy.layout, sizes=sizes))
    adaptation = chosen.start(prepared, memory, chosen.Training(), torch.device("cpu"))
    functions, downs = adaptation.weight_functions(), set()
    for name, laid in memory.laid().items():
        function, weight = functions[name], torch.ones(toy.layout.shape(name))
        assert isinstance(function, Factored) and (function.rest is not None) == in_the_weights
        assert bool(function.products()) != in_the_weights
        torch.testing.assert_close(function(weight), weight + laid.in_full(), atol=1e-2, rtol=1e-3)
        downs |= {down.data_ptr() for _, down in function.products()}
    assert len(downs) == (not in_the_weights), "all projections have the same directions"


def test_what_the_user_keeps_is_protected(learner, toy):
    effects = []
    for keep in ("", "word9\n\n  the word9  "):
        prepared, trainer = learner(protection={"keep": keep})
        trainer.run()
        effects.append(moved(trainer.adaptation.learned(), features(toy, ["word9"], None)))
        assert ("the word9" in prepared.protected.prompts) == bool(keep)
    assert effects[1] < effects[0]


def test_a_concept_louder_than_the_forecast_is_told_as_all_of_it():
    directions = Directions(torch.eye(3, 2).double(), torch.tensor([0.5, 0.4]))
    assert _energy_heard(directions, 9 * torch.eye(3).double()) == 1.0
    silent = Directions(torch.zeros(3, 0).double(), torch.zeros(0))
    assert _energy_heard(silent, torch.eye(3).double()) == 0.0


def test_keys_or_values_alone(learner):
    for which, ending in (("keys", "to_k"), ("values", "to_v")):
        _, trainer = learner(moves=which)
        trainer.run()
        change = trainer.adaptation.learned()
        moving = {n for n in change.layout.names if change.added(n)[0].any()}
        assert moving == {n for n in change.layout.names if n.endswith(ending)}


def test_a_concept_without_a_direction_of_its_own_keeps_its_token_and_says_so(learner):
    prepared, trainer = learner(least_gain=1e6)
    trainer.run()
    change = trainer.adaptation.learned()
    assert not len(change.gains) and "no direction was its own" in change.summary()
    assert "hardly apart from the class word's" in prepared.outcome(change)
    assert not any(
        change.lay(n, torch.zeros(s, dtype=torch.float16)).any() for n, s, _ in change.layout.slices()
    )


# --- what is kept


def directions_change(answers, down):
    return DirectionsChange(LAYOUT, answers.half(), down.float(), torch.ones(len(down)))


def test_a_change_adds_to_whatever_is_there():
    generator = torch.Generator().manual_seed(2)
    change = directions_change(torch.randn(5, 2, generator=generator), torch.randn(2, 4, generator=generator))
    on = torch.randn(3, 4, generator=generator).half()
    up, down = change.added("a.to_k")
    torch.testing.assert_close(change.lay("a.to_k", on), (on.float() + up @ down).half())
    again = DirectionsChange.read(LAYOUT, change.tensors())
    assert all(torch.equal(again.tensors()[n], t) for n, t in change.tensors().items())


@pytest.mark.parametrize(
    "answers, down",
    [
        (torch.zeros(4, 2), torch.zeros(2, 4)),
        (torch.zeros(5, 2), torch.zeros(2, 3)),
        (torch.zeros(5, 1), torch.zeros(2, 4)),
        (torch.full((5, 2), torch.nan), torch.zeros(2, 4)),
        (torch.zeros(5, 2), torch.full((2, 4), torch.inf)),
    ],
)
def test_changes_of_another_shape_or_not_finite_are_refused(answers, down):
    with pytest.raises(ValueError, match=r"expected|not finite"):
        directions_change(answers, down)
