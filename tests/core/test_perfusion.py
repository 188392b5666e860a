"""Perfusion on a toy: where the token is read, what is locked, how several concepts are joined."""

import pytest
import torch

from cns_core.identity import ModelIdentity
from cns_core.memory import ConceptMemory, LearnedConcept
from cns_core.method import Taught
from cns_core.methods import METHODS
from cns_core.methods.perfusion.change import PerfusionChange
from cns_core.methods.perfusion.metric import answer_direction, inverse_metric
from cns_core.methods.perfusion.places import places_of
from cns_core.methods.token_only import NoChange
from cns_core.projections import ProjectionLayout
from cns_core.settings import TrainSettings
from cns_core.text_features import TextFeatures
from cns_core.training import ConceptTrainer, LatentImage, TrainingData

PERFUSION = METHODS["perfusion"]
BASE = ModelIdentity("toy", "0")
CAPTIONS = ("a photo of word1", "the word1")
LAYOUT = ProjectionLayout(("a.to_k", "a.to_v"), ((3, 4), (2, 4)))


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def root(moment):
    values, basis = torch.linalg.eigh(moment)
    return (basis / values.sqrt()) @ basis.T


# --- the edit


def test_one_edit_disturbs_the_prompts_least_of_all_that_answer_the_target():
    moment, target, weight, wanted = drawn(6, 6), drawn(6, seed=1), drawn(3, 6, seed=2), drawn(3, seed=3)
    moment = moment @ moment.T + torch.eye(6)
    row = answer_direction(target, torch.zeros(0, 6).double(), torch.linalg.inv(moment))
    edit = torch.outer(wanted - weight @ target, row)
    # Where C is the identity the least change is the pseudo-inverse's, and C^-1/2 x is such a place.
    white = root(moment)
    least = torch.outer(wanted - weight @ target, torch.linalg.pinv((white @ target)[:, None])[0]) @ white
    torch.testing.assert_close(edit, least)
    torch.testing.assert_close((weight + edit) @ target, wanted)


def test_edits_one_after_another_are_the_joint_edit_of_all():
    moment, targets, weight, wanted = (
        drawn(6, 6),
        drawn(3, 6, seed=1),
        drawn(2, 6, seed=2),
        drawn(3, 2, seed=3),
    )
    moment = moment @ moment.T + torch.eye(6)
    inverse, edited = torch.linalg.inv(moment), weight.clone()
    for i in range(3):
        row = answer_direction(targets[i], targets[:i], inverse)
        edited = edited + torch.outer(wanted[i] - edited @ targets[i], row)
    white = root(moment)
    joint = weight + (wanted.T - weight @ targets.T) @ torch.linalg.pinv(white @ targets.T) @ white
    torch.testing.assert_close(edited, joint)
    torch.testing.assert_close(targets @ edited.T, wanted)


def test_a_token_that_reads_as_an_earlier_one_is_not_answered_without_bounds():
    target, inverse = drawn(6), torch.eye(6).double()
    for apart in (0.0, 1e-9, 1e-3):
        row = answer_direction(target, (target + apart * drawn(6, seed=1))[None], inverse)
        assert float(row @ target) == pytest.approx(1)
        assert float(row.norm() * target.norm()) < 11
    assert float(answer_direction(target, drawn(1, 6, seed=1), inverse) @ drawn(6, seed=1)) == pytest.approx(
        0
    )


def test_the_metric_has_a_floor_under_every_direction():
    x = torch.tensor([[2.0, 0.0], [4.0, 0.0]]).double()
    torch.testing.assert_close(
        inverse_metric(x.T @ x, 0.1), torch.diag(torch.tensor([1 / 21, 1 / 1])).double()
    )
    with pytest.raises(ValueError, match="have an energy of 0; it must be above 0"):
        inverse_metric(torch.zeros(2, 2), 0.1)


# --- where the token is read


class Reader:
    """A probe whose words are read by their first letters; the token has two vectors, `<new>s` but one."""

    def features(self, prompts):
        rows, marks = [], []
        for prompt in prompts:
            pieces = prompt.replace("<new>s", "@").replace("<new>", " N N ").split()
            pieces = [ord(piece[0]) for piece in pieces]
            rows.append([0, *pieces, *[-1] * (9 - len(pieces))])
            marks.append([0 < i <= len(pieces) for i in range(10)])
        return TextFeatures(torch.tensor(rows).float()[..., None], None, torch.tensor(marks))


@pytest.mark.parametrize(
    "caption, token, class_word",
    [
        ("<new>", [1, 2], [1]),
        ("a photo of <new>", [4, 5], [4]),
        ("<new> beside <new>", [1, 2], [1]),
        ("a <new> in a place", [2, 3], [2]),
    ],
)
def test_the_token_and_its_class_word_are_found_where_they_come_first(caption, token, class_word):
    places = places_of(Taught("<new>", "dog", (caption,)), Reader())
    assert [found.marks[0].nonzero()[:, 0].tolist() for found in places] == [token, class_word]
    assert [found.reading(Reader()).tolist() for found in places] == [[ord("N")], [ord("d")]]


def test_captions_whose_words_do_not_add_up_are_left_out():
    taught = Taught("<new>", "dog", ("two <new>s", "the <new>"))
    assert [found.captions for found in places_of(taught, Reader())] == [("the <new>",), ("the dog",)]
    with pytest.raises(ValueError, match=r"No caption tells where .* reads <new>, e.g. 'two <new>s'"):
        places_of(Taught("<new>", "dog", taught.captions[:1]), Reader())


def test_of_many_captions_some_of_all_are_looked_at():
    taught = Taught("<new>", "dog", tuple(f"{n} <new>" for n in range(40)))
    places = places_of(taught, Reader())[0]
    assert len(places.captions) == 14 and places.captions[-1] == "39 <new>"
    turns = [places.of_step(step).captions for step in range(14)]
    assert turns[0] == places.captions[:4] and turns[3] == (*places.captions[12:], *places.captions[:2])
    assert sorted(c for turn in turns for c in turn) == sorted(places.captions * 4)


# --- learning


@pytest.fixture
def learner(toy, toy_material):
    def start(memory=None, seed=0, steps=8, token_lr=5e-2, **settings):
        memory = memory or ConceptMemory(BASE, toy.layout)
        prepared = PERFUSION.prepare(toy_material(toy, CAPTIONS, 6, memory), PERFUSION.Selection())
        adaptation = PERFUSION.start(prepared, memory, PERFUSION.Training(**settings), torch.device("cpu"))
        latents = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(seed + 1))
        image = LatentImage(latents, ("a photo of <new>", "the <new>"), CAPTIONS)
        train = TrainSettings(steps=steps, batch_size=2, token_lr=token_lr, seed=seed, prior="none")
        vectors = {"toy": drawn(1, 24, seed=seed + 2).float()}
        return prepared, ConceptTrainer(toy, TrainingData((image,)), adaptation, vectors, train)

    return start


def read_in(toy, word, vectors=None):
    """A word's features in the two captions, the mean."""
    found = toy.encode([c.replace("word1", word) for c in CAPTIONS], vectors).cross.detach().double()
    return (found[0, 4] + found[1, 2]) / 2


def weights(toy, adaptation):
    names = toy.layout.names
    with toy.weights_patched(adaptation.weight_functions()):
        return {n: toy.unet.get_submodule(n).weight.detach().double().clone() for n in names}


def remembered(trainer, number, memory):
    name = f"c{number}"
    return memory.with_learned(
        LearnedConcept(
            name,
            f"<{name}>",
            "word1",
            "subject",
            (f"a photo of <{name}>",),
            "perfusion",
            trainer.adaptation.learned(),
            trainer.state().token_vectors,
            {},
            {},
            "now",
        )
    )


def test_the_edit_follows_the_token(learner, toy):
    _, trainer = learner(smoothing=0.5)
    vectors = [{"toy": trainer.vectors["toy"].detach().clone()}]
    trainer.run(lambda report: vectors.append({"toy": trainer.vectors["toy"].detach().clone()}))
    readings = [read_in(toy, "<new>", v) for v in vectors[:-1]]
    expected = readings[0] / 2**7 + sum(reading / 2 ** (8 - n) for n, reading in enumerate(readings) if n)
    torch.testing.assert_close(trainer.adaptation.target, expected)
    assert float((readings[0] - readings[-1]).norm()) > 0.1


def test_keys_are_locked_to_the_class_words_and_values_are_learned(learner, toy):
    memory = ConceptMemory(BASE, toy.layout)
    for number in range(2):
        _, trainer = learner(memory, seed=number)
        first_read = read_in(toy, "<new>", trainer.vectors)
        before = weights(toy, trainer.adaptation)
        trainer.run()
        after, adaptation = weights(toy, trainer.adaptation), trainer.adaptation
        for name, weight in toy.projections().items():
            if name.endswith("to_k"):
                wanted = weight.double() @ read_in(toy, "word1")
            else:
                answers = adaptation.answers.detach()[adaptation._rows[name]].double()
                assert float(answers.abs().max()) > 0.05
                wanted = before[name] @ first_read + answers
            torch.testing.assert_close(after[name] @ adaptation.target, wanted, atol=1e-4, rtol=1e-4)
        memory = remembered(trainer, number, memory)


def test_an_earlier_concept_is_answered_as_before(learner, toy):
    _, trainer = learner(seed=0)
    trainer.run()
    memory = remembered(trainer, 0, ConceptMemory(BASE, toy.layout))
    target, before = trainer.adaptation.target, weights(toy, trainer.adaptation)
    prepared, trainer = learner(memory, seed=1)
    trainer.run()
    after = weights(toy, trainer.adaptation)
    for name in toy.layout.names:
        assert float((after[name] - before[name]).norm()) > 0.01
        torch.testing.assert_close(after[name] @ target, before[name] @ target, atol=2e-3, rtol=1e-3)
    assert "answers nothing where `<c0>` is read" in prepared.report(10_000, memory.left())
    assert "keys and values of <c0> move by" in prepared.outcome(trainer.adaptation.learned())


def test_a_step_that_was_broken_off_is_begun_again_alike(learner):
    _, trainer = learner()
    trainer.run()
    adaptation = trainer.adaptation
    targets = []
    for step in (8, 8, 9):
        adaptation.before_step(step, 10, trainer)
        targets.append(adaptation.target.clone())
    assert torch.equal(targets[0], targets[1]) and not torch.equal(targets[1], targets[2])


def test_what_is_kept_after_the_last_step_of_a_resumed_run_is_the_same(learner):
    _, trainer = learner()
    trainer.run()
    _, again = learner()
    again.adaptation.load_state_dict(trainer.adaptation.state_dict())
    expected = trainer.adaptation.learned().tensors()
    assert all(torch.equal(t, expected[n]) for n, t in again.adaptation.learned().tensors().items())


# --- what is kept


def change(ups=5, downs=(1, 2, 4), targets=(2, 4), dtype=torch.float32):
    return PerfusionChange(
        LAYOUT, torch.ones(ups, 2).half(), torch.ones(downs, dtype=dtype), torch.ones(targets)
    )


def test_a_concept_learned_further_keeps_both_edits():
    twice = change().refined(change(), lambda name: torch.zeros(1))
    assert twice.rank == 4 and twice.targets.shape == (4, 4) and "4 rank-one edits" in twice.summary()
    on = torch.zeros(3, 4).half()
    assert torch.equal(twice.lay("a.to_k", on), torch.full((3, 4), 4.0).half())
    again = PerfusionChange.read(LAYOUT, twice.tensors())
    assert all(torch.equal(t, twice.tensors()[n]) for n, t in again.tensors().items())
    with pytest.raises(TypeError, match="NoChange was not learned by Perfusion"):
        change().refined(NoChange(LAYOUT), lambda name: torch.zeros(1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"ups": 4},
        {"downs": (2, 2, 4)},
        {"dtype": torch.float16},
        {"targets": (1, 4)},
        {"targets": (2, 3)},
    ],
)
def test_changes_of_another_shape_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        change(**wrong)


def test_targets_that_are_not_finite_are_refused():
    tensors = change().tensors()
    with pytest.raises(ValueError, match="targets are not finite"):
        PerfusionChange.read(LAYOUT, {**tensors, "targets": torch.full((2, 4), torch.nan)})
    with pytest.raises(ValueError, match="expected ups, downs and targets"):
        PerfusionChange.read(LAYOUT, {"ups": tensors["ups"], "downs": tensors["downs"]})
