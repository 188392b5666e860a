"""Rules that join concepts learned apart: each against its own objective, and what is kept of the result."""

import math

import pytest
import torch

from cns_core.forget import forget
from cns_core.identity import ModelIdentity
from cns_core.joining import JOININGS
from cns_core.joining.change import JoinedChange
from cns_core.joining.closed_form import ClosedForm
from cns_core.joining.join import Seen, check_joinable, join
from cns_core.joining.rule import Evidence
from cns_core.memory import ConceptMemory, LearnedConcept
from cns_core.memory_file import load_memory, save_memory
from cns_core.methods.cns.change import CnsChange
from cns_core.methods.cns.masks import NeuronMask
from cns_core.methods.dense_kv import DenseChange
from cns_core.methods.directions.change import DirectionsChange
from cns_core.methods.token_only import NoChange
from cns_core.moments import second_moment
from cns_core.projections import ProjectionLayout
from cns_core.settings import check, described

WIDTH = 12
LAYOUT = ProjectionLayout(("a.attn2.to_k", "a.attn2.to_v"), ((5, WIDTH), (14, WIDTH)))
WIDER = ProjectionLayout((*LAYOUT.names, "a.attn1.to_q"), (*LAYOUT.shapes, (3, 4)))
BASE = ModelIdentity("SD1", "ab" * 32)
TEXT_RULES = ("gradient fusion", "closed form", "ziplora")


def chance(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def concept(name, change, method, **changes):
    return LearnedConcept(
        **{
            "name": name,
            "token": f"<{name}>",
            "class_word": "dog",
            "kind": "subject",
            "captions": (f"a photo of <{name}>",),
            "method": method,
            "change": change,
            "token_vectors": {"clip_l": torch.arange(4.0)[None]},
            "settings": {"train": {"steps": 3}},
            "losses": {},
            "learned_at": "",
            **changes,
        }
    )


def dense(name, seed, layout=LAYOUT):
    changes = {n: (0.1 * chance(*s, seed=seed + i)).half() for i, (n, s, _) in enumerate(layout.slices())}
    return concept(name, DenseChange(layout, changes), "all K/V")


def along(name, seed, rank=2):
    rows = sum(out for out, _ in LAYOUT.shapes)
    answers, directions = chance(rows, rank, seed=seed).half(), chance(rank, WIDTH, seed=seed + 1).float()
    return concept(name, DirectionsChange(LAYOUT, answers, directions, torch.ones(rank)), "directions")


def neurons(name, seed):
    dense_masks = {n: chance(*s, seed=seed + i) > 0.5 for i, (n, s, _) in enumerate(LAYOUT.slices())}
    mask = NeuronMask.from_dense(LAYOUT, dense_masks)
    return concept(name, CnsChange(mask, chance(mask.count(), seed=seed).half()), "cns")


def memory(*concepts, base=BASE):
    return ConceptMemory(base, LAYOUT, concepts)


class World:
    """Memories, with features that tell of each, `(rows, WIDTH)`, and of general prompts."""

    def __init__(self, memories, rows, seed=100):
        self.memories = memories
        self.own = [chance(rows, WIDTH, seed=seed + i) for i in range(len(memories))]
        self.general = chance(200, WIDTH, seed=seed - 1) @ chance(WIDTH, WIDTH, seed=seed - 2)

    def joined(self, name, **settings):
        return self.joined_by(JOININGS[name], **settings)

    def joined_by(self, rule, **settings):
        own = tuple(second_moment([x], WIDTH) for x in self.own)
        general = second_moment([self.general], WIDTH)
        gram = torch.eye(WIDTH, dtype=torch.float64)
        evidence, seen = Evidence(own, general), Seen(own, general, gram)
        return join(
            self.memories,
            rule,
            rule.Settings(**settings),
            evidence,
            seen,
            lambda done, total: None,
        )

    def changes(self, name):
        return [memory.changes()[name].double() for memory in self.memories]

    def asked(self, name):
        """Features of all memories and what each memory alone adds to the projection's output of them."""
        pairs = zip(self.own, self.changes(name), strict=True)
        return torch.cat(self.own), torch.cat([x @ change.T for x, change in pairs])


def full(joined):
    return {name: laid.in_full().double() for name, laid in joined.memory.laid().items()}


def apart(rows=3):
    return World([memory(dense("one", 1)), memory(along("two", 5)), memory(neurons("three", 9))], rows)


# --- the rules


@pytest.mark.parametrize("name", JOININGS)
def test_its_settings_lie_in_their_own_ranges(name):
    settings = JOININGS[name].Settings()
    check(settings)
    assert all(what.help.endswith(".") for _, what in described(type(settings)).values())


def test_gradient_fusion_is_the_least_squares_that_lbfgs_approaches():
    world = apart(rows=30)  # more than any matrix can do: nothing is reproduced exactly
    found = full(world.joined("gradient fusion", ridge=1e-9, keep_general=0))
    for name in LAYOUT.names:
        features, answers = world.asked(name)
        expected = torch.linalg.lstsq(features, answers).solution.T
        torch.testing.assert_close(found[name], expected, atol=2e-3, rtol=2e-3)
        weight = torch.zeros_like(expected, requires_grad=True)
        lbfgs = torch.optim.LBFGS([weight], max_iter=60, line_search_fn="strong_wolfe")

        def loss(weight=weight, lbfgs=lbfgs, features=features, answers=answers):
            lbfgs.zero_grad()
            found = (features @ weight.T - answers).square().sum()
            found.backward()
            return found

        lbfgs.step(loss)
        torch.testing.assert_close(found[name], weight.detach(), atol=2e-3, rtol=2e-3)


def test_gradient_fusion_with_general_prompts_is_that_of_more_rows():
    world = apart(rows=6)
    found = full(world.joined("gradient fusion", ridge=1e-9, keep_general=0.5))
    for name in LAYOUT.names:
        features, answers = world.asked(name)
        general = math.sqrt(0.5) * world.general
        features = torch.cat([features, general])
        answers = torch.cat([answers, torch.zeros(len(general), answers.shape[1], dtype=torch.float64)])
        expected = torch.linalg.lstsq(features, answers).solution.T
        torch.testing.assert_close(found[name], expected, atol=2e-3, rtol=2e-3)


def test_the_closed_form_keeps_every_concepts_keys_and_values_and_moves_general_prompts_least():
    world = apart(rows=3)  # 9 independent rows of 12 dimensions
    done = world.joined_by(ClosedForm(weight=1e-9), floor=1e-6)
    found = full(done)
    assert max(done.missed) < 2e-3
    covariance = second_moment([world.general], WIDTH)
    covariance = covariance + 1e-6 * covariance.trace() / WIDTH * torch.eye(WIDTH, dtype=torch.float64)
    for name in LAYOUT.names:
        features, answers = world.asked(name)
        torch.testing.assert_close(features @ found[name].T, answers, atol=5e-3, rtol=5e-3)
        # As the paper writes it, a row for each of the targets.
        d = torch.linalg.solve(covariance, features.T).T
        expected = answers.T @ torch.linalg.inv(d @ features.T) @ d
        torch.testing.assert_close(found[name], expected, atol=5e-3, rtol=5e-3)
        # Whatever else does the same to the captions does more to general prompts.
        nowhere = torch.linalg.svd(features).Vh[9:]
        other = found[name] + 0.1 * chance(len(found[name]), 3, seed=7) @ nowhere
        assert (world.general @ found[name].T).norm() < (world.general @ other.T).norm()


def test_the_closed_form_takes_captions_that_say_the_same():
    """There the inverse of the paper does not exist."""
    world = apart(rows=2)
    world.own = [torch.cat([x, x, x[:1] + x[1:]]) for x in world.own]
    done = world.joined_by(ClosedForm(weight=1e-9))
    assert max(done.missed) < 2e-3


def test_the_closed_form_does_not_move_all_else_for_captions_that_differ_by_next_to_nothing():
    world = apart(rows=3)
    common = 30 * chance(3, WIDTH, seed=1)
    world.own = [common + 1e-3 * x for x in world.own]
    exact, done = world.joined_by(ClosedForm(weight=1e-12)), world.joined("closed form")
    assert exact.general > 20 * done.general


def test_what_captions_do_not_speak_of_gradient_fusion_leaves_alone():
    world = apart(rows=2)
    for name, change in full(world.joined("gradient fusion", ridge=1e-9, keep_general=0)).items():
        nowhere = torch.linalg.svd(world.asked(name)[0]).Vh[6:]
        torch.testing.assert_close(
            change @ nowhere.T, torch.zeros(len(change), 6).double(), atol=1e-3, rtol=0
        )


def objective(world, name, first, second, overlap):
    """ZipLoRA's, written out."""
    one, two = world.changes(name)
    whole = one * first + two * second
    total = overlap * (first * second).abs().mean()
    for features, change in zip(world.own, (one, two), strict=True):
        rest = ((whole - change) @ features.T).square().sum()
        total = total + rest / (change @ features.T).square().sum()
    return float(total)


def test_ziplora_comes_near_the_least_of_its_objective():
    world = World([memory(along("one", 5)), memory(dense("two", 1))], 4)
    one = torch.ones(WIDTH, dtype=torch.float64)
    blend = JOININGS["ziplora"].start(
        Evidence(tuple(second_moment([x], WIDTH) for x in world.own), torch.eye(WIDTH).double()),
        JOININGS["ziplora"].Settings(overlap=0.05, merge_steps=500),
    )
    for name in LAYOUT.names:
        first, second = (m.weights.double() for m in blend.maps(world.changes(name)))
        least = objective(world, name, first, second, 0.05)
        assert least < 0.5 * objective(world, name, one, one, 0.05)
        for number in range(20):  # no small step from there does better
            step = 0.02 * chance(2, WIDTH, seed=number)
            assert objective(world, name, first + step[0], second + step[1], 0.05) > least - 1e-4


def test_ziplora_is_the_same_every_time_and_where_the_host_asks_for_no_gradient():
    world = World([memory(along("one", 5)), memory(dense("two", 1))], 4)
    with torch.inference_mode():
        done = world.joined("ziplora")
    assert done.memory.digest() == world.joined("ziplora").memory.digest()
    summed = world.joined("sum")
    assert sum(done.missed) < sum(summed.missed)
    changes, found = [m.laid() for m in world.memories], full(done)
    for name in LAYOUT.names:
        columns = [laid[name].in_full().double() for laid in changes]
        for column in range(WIDTH):  # a factor on each column
            both = torch.stack([change[:, column] for change in columns], 1)
            rest = torch.linalg.lstsq(both, found[name][:, column, None]).solution
            torch.testing.assert_close(both @ rest, found[name][:, column, None], atol=1e-3, rtol=1e-3)


def test_the_sum_adds_also_what_took_the_place_of_entries():
    world = World([memory(neurons("one", 1), neurons("two", 3)), memory(neurons("three", 5))], 3)
    found = full(world.joined("sum"))
    for name in LAYOUT.names:
        torch.testing.assert_close(found[name], sum(world.changes(name)), atol=4e-3, rtol=0)


def test_what_is_added_anyway_the_sum_leaves_as_it_is():
    world = World([memory(along("one", 1)), memory(along("two", 5))], 3)
    joined = world.joined("sum").memory
    assert [c.change for c in joined.concepts] == [m.concepts[0].change for m in world.memories]
    assert [c.method for c in joined.concepts] == ["directions"] * 2


def test_the_sum_takes_other_weights_too_and_the_others_refuse_them():
    wide = dense("wide", 1, WIDER)
    world = World([memory(wide), memory(along("two", 5))], 3)
    joined = world.joined("sum").memory
    assert joined.whole == WIDER
    torch.testing.assert_close(joined.changes()["a.attn1.to_q"], wide.change.tensors()["a.attn1.to_q"])
    for name in TEXT_RULES:
        with pytest.raises(ValueError, match=r"moved 1 weights such as a.attn1.to_q .* Choose sum"):
            world.joined(name)


# --- what is kept


@pytest.mark.parametrize("name", JOININGS)
def test_each_concept_keeps_a_share_that_can_be_forgotten_and_weakened(name, tmp_path):
    world = World([memory(neurons("one", 9), along("two", 5)), memory(dense("three", 1))], 3)
    joined = world.joined(name).memory
    assert joined.names() == ["one", "two", "three"]
    whole = full(world.joined(name))
    done = forget(joined, "<two>")
    assert done.exact and done.memory.names() == ["one", "three"]
    assert f"was joined by {name}" in done.told()[1] or name == "sum"
    shares = {c.token: memory(c).laid() for c in joined.concepts}
    half = joined.laid({"<two>": 0.5})
    for projection in LAYOUT.names:
        own = {token: laid[projection].in_full().double() for token, laid in shares.items()}
        torch.testing.assert_close(sum(own.values()), whole[projection], atol=1e-5, rtol=1e-4)
        rest = done.memory.laid()[projection].in_full().double()
        torch.testing.assert_close(rest, own["<one>"] + own["<three>"], atol=1e-5, rtol=1e-4)
        weaker = half[projection].in_full().double()
        torch.testing.assert_close(weaker, rest + own["<two>"] / 2, atol=1e-5, rtol=1e-4)
        stage = joined.stage(1).laid()[projection].in_full().double()
        torch.testing.assert_close(stage, own["<one>"], atol=1e-5, rtol=1e-4)
    save_memory(tmp_path / "m.safetensors", joined)
    again = load_memory(tmp_path / "m.safetensors")
    assert again.digest() == joined.digest() and again.summary() == joined.summary()


def test_captions_tokens_and_what_it_was_learned_by_stay():
    world = apart()
    joined = world.joined("gradient fusion").memory
    for memory_before, now in zip(world.memories, joined.concepts, strict=True):
        (before,) = memory_before.concepts
        assert (now.captions, now.token_vectors) == (before.captions, before.token_vectors)
        assert now.method == "gradient fusion" and now.settings["train"] == {"steps": 3}
        assert now.settings["joined"]["learned_by"] == before.method
        assert now.settings["joined"]["concepts"] == ["one", "two", "three"]
        # 3 rows tell of it: no more columns of it are left.
        assert now.change.summary() == "a share of rank 3 in what was joined by gradient fusion"


def test_a_token_alone_stays_one():
    alone = concept("one", NoChange(LAYOUT), "token alone")
    world = World([memory(alone), memory(along("two", 5))], 3)
    for name in JOININGS:
        assert world.joined(name).memory.concepts[0] is alone


def test_progress_is_told_and_may_stop_it():
    world, told = apart(), []

    def stop(done, total):
        told.append((done, total))
        if done == 1:
            raise KeyboardInterrupt

    rule = JOININGS["closed form"]
    moments = tuple(second_moment([x], WIDTH) for x in world.own)
    general = torch.eye(WIDTH).double()
    evidence, seen = Evidence(moments, general), Seen(moments, general, general)
    with pytest.raises(KeyboardInterrupt):
        join(world.memories, rule, rule.Settings(), evidence, seen, stop)
    assert told == [(0, 2), (1, 2)]


def test_other_tensors_are_refused():
    share = JoinedChange.read(
        "sum", LAYOUT, {f"dense.{n}": torch.zeros(s).half() for n, s, _ in LAYOUT.slices()}
    )
    assert share.summary() == "a share of whole matrices in what was joined by sum"
    good = share.tensors()
    first = f"dense.{LAYOUT.names[0]}"
    for wrong, fault in (
        ({**good, "mask": torch.zeros(2)}, "the tensor 'mask'"),
        ({n: t for n, t in good.items() if n != first}, "expected"),
        ({**good, first: torch.zeros(5, WIDTH)}, "torch.float32"),
        ({**good, first: torch.full((5, WIDTH), math.inf).half()}, "not finite"),
        ({**good, f"up.{LAYOUT.names[0]}": torch.zeros(5, 2).half()}, "expected"),
    ):
        with pytest.raises(ValueError, match=fault):
            JOININGS["sum"].read(LAYOUT, wrong)


# --- what cannot be joined


def test_names_tokens_models_and_numbers_are_checked_before_any_work():
    one, rule = memory(along("one", 1)), JOININGS["gradient fusion"]
    other = memory(along("two", 1), base=ModelIdentity("SD1", "cd" * 32))
    erased = memory(concept("no cats", along("x", 1).change, "uce", kind="erasure", token=""), along("b", 3))
    for memories, fault in (
        ([one, memory(along("one", 3))], "Memory 2 holds 'one' .<one>., and so does one before it"),
        ([one, one], "learned apart"),
        (
            [one, memory(concept("b", along("b", 3).change, "directions", token="<one>"))],
            "so does one before",
        ),
        ([one, other], "Only memories of one model"),
        ([one, memory()], "Memory 2 holds no concept"),
        ([one, erased], "Memory 2 has an erasure, 'no cats'"),
    ):
        with pytest.raises(ValueError, match=fault):
            check_joinable(memories, rule)
    with pytest.raises(ValueError, match="There are 3 memories, but ziplora joins 2"):
        check_joinable([one, memory(along("b", 3)), memory(along("c", 3))], JOININGS["ziplora"])
