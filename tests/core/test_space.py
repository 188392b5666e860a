"""A linear space of concepts, against the same done on matrices that are formed in full."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cns_core.forget import forget
from cns_core.identity import ModelIdentity
from cns_core.memory import ConceptMemory, LearnedConcept
from cns_core.memory_file import load_memory, save_memory
from cns_core.methods.dense_kv import DenseChange
from cns_core.methods.directions.change import DirectionsChange
from cns_core.methods.token_only import NoChange
from cns_core.projections import ProjectionLayout
from cns_core.space.change import OutOfSpace
from cns_core.space.making import edit, sample
from cns_core.space.members import gathered
from cns_core.space.mixing import summed
from cns_core.space.settings import EditSettings, SampleSettings, SpaceSettings
from cns_core.space.space import ConceptSpace

WIDTH, DIM = 12, 6
LAYOUT = ProjectionLayout(("a.attn2.to_k", "a.attn2.to_v"), ((5, WIDTH), (14, WIDTH)))
ROWS = sum(out for out, _ in LAYOUT.shapes)
BASE = ModelIdentity("SD1", "ab" * 32)
N = 9
ALL = 64  # a rank that leaves nothing out


def chance(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def concept(name, change, vectors, method="directions", **changes):
    return LearnedConcept(
        **{
            "name": name,
            "token": f"<{name}>",
            "class_word": "ball",
            "kind": "subject",
            "captions": (f"a photo of <{name}>", f"<{name}> at night"),
            "method": method,
            "change": change,
            "token_vectors": {"clip_l": vectors},
            "settings": {"train": {"steps": 3}},
            "losses": {},
            "learned_at": "",
            **changes,
        }
    )


def along(name, seed, rank=2, scale=0.1, **changes):
    """Along directions of its own."""
    answers = (scale * chance(ROWS, rank, seed=seed)).half()
    directions = chance(rank, WIDTH, seed=seed + 1).float()
    change = DirectionsChange(LAYOUT, answers, directions, torch.ones(rank))
    return concept(name, change, chance(1, DIM, seed=seed + 2).float(), **changes)


def memory(*concepts, base=BASE):
    return ConceptMemory(base, LAYOUT, concepts)


def apart(count=N):
    """As many memories, of one concept each."""
    return [memory(along(f"c{i}", 10 * i, rank=1 + i % 3)) for i in range(count)]


def nothing(done, total):
    assert 0 <= done <= total


def space_of(memories, token_share=0.5):
    return ConceptSpace.of(gathered(memories), token_share, nothing)


def weights_of(concept):
    """All that it changes, formed in full, as one row."""
    change = memory(concept).laid()
    return np.concatenate([change[n].in_full().double().numpy().ravel() for n in LAYOUT.names])


def vectors_of(concept):
    return concept.token_vectors["clip_l"].double().numpy().ravel()


class Dense:
    """The same space, of points with one coordinate for each weight and each number of a token."""

    def __init__(self, concepts, token_share=0.5):
        weights, tokens = (np.stack([of(c) for c in concepts]) for of in (weights_of, vectors_of))
        scales = [
            math.sqrt(share / ((x - x.mean(0)) ** 2).sum())
            for x, share in ((weights, 1 - token_share), (tokens, token_share))
        ]
        self.scale = np.concatenate([np.full(weights.shape[1], scales[0]), np.full(DIM, scales[1])])
        self.points = np.concatenate([weights, tokens], 1) * self.scale
        self.mean = self.points.mean(0)
        _, sizes, axes = np.linalg.svd(self.points - self.mean, full_matrices=False)
        self.variances, self.axes = sizes[:-1] ** 2, axes[:-1]  # the last one is 0

    def of(self, concept):
        return np.concatenate([weights_of(concept), vectors_of(concept)]) * self.scale


def concepts_of(memories):
    return [c for m in memories for c in m.concepts]


# --- the space


@pytest.mark.parametrize("token_share", [0.0, 0.3, 1.0])
def test_components_are_those_of_the_formed_differences(token_share):
    memories = apart()
    space, dense = space_of(memories, token_share), Dense(concepts_of(memories), token_share)
    count = len(space.variances)
    assert count == (DIM if token_share == 1 else N - 1)
    np.testing.assert_allclose(space.variances.numpy(), dense.variances[:count], rtol=1e-5)
    assert float(space.variances.sum()) == pytest.approx(1)
    found = (space.axes / space.variances.sqrt()).numpy().T @ (dense.points - dense.mean)
    alike = np.abs((found * dense.axes[:count]).sum(1))
    np.testing.assert_allclose(alike, 1, atol=1e-4)  # up to the sign, which is nothing's own
    assert space.share(2) == pytest.approx(dense.variances[:2].sum(), rel=1e-4)


def test_a_planted_space_is_found_whatever_factors_its_points_are_written_in():
    """Concepts of two traits: two components hold all, and what is drawn has nothing but these traits."""
    traits = chance(N, 2, seed=1)
    ups = 0.1 * chance(3, ROWS, 1, seed=2)
    downs, tokens = chance(3, 1, WIDTH, seed=3), chance(3, DIM, seed=4)
    memories = []
    for i, (a, b) in enumerate(traits.tolist()):
        mixed = 2 * torch.linalg.qr(chance(3, 3, seed=50 + i))[0]  # other factors of the same product
        up = torch.cat([ups[0], a * ups[1], b * ups[2]], 1) @ mixed
        down = torch.linalg.inv(mixed) @ downs[:, 0]
        change = DirectionsChange(LAYOUT, up.half(), down.float(), torch.ones(3))
        vector = tokens[0] + a * tokens[1] + b * tokens[2]
        memories.append(memory(concept(f"c{i}", change, vector[None].float())))
    space = space_of(memories)
    assert space.share(2) > 0.99999
    made = sample(gathered(memories), "new", SampleSettings(seed=7, components=2, rank=ALL), nothing).concept
    planted = np.stack([(u @ d).numpy().ravel() for u, d in zip(ups, downs, strict=True)], 1)
    point = weights_of(made)
    found, *_ = np.linalg.lstsq(planted, point, rcond=None)
    assert found[0] == pytest.approx(1, abs=0.01)  # what all have in common
    assert np.linalg.norm(planted @ found - point) < 2e-3 * np.linalg.norm(point)
    # The token has the same traits as the weights: they were drawn together.
    expected = (torch.tensor(found) @ tokens).numpy()
    np.testing.assert_allclose(vectors_of(made), expected, rtol=0.02, atol=0.02)


def test_concepts_that_differ_in_one_of_the_two_alone():
    same = along("c", 5)
    by_token = [
        memory(
            replace(
                same, name=f"c{i}", token=f"<c{i}>", token_vectors={"clip_l": chance(1, DIM, seed=i).float()}
            )
        )
        for i in range(4)
    ]
    assert len(space_of(by_token).variances) == 3
    with pytest.raises(ValueError, match="are alike in what a token share of 0 looks at"):
        space_of(by_token, token_share=0)
    alike = [memory(replace(same, name=f"c{i}", token=f"<c{i}>")) for i in range(4)]
    with pytest.raises(ValueError, match="4 concepts are alike"):
        space_of(alike)


# --- samples


def test_a_sample_at_no_distance_is_the_mean():
    memories = apart()
    dense = Dense(concepts_of(memories))
    made = sample(gathered(memories), "new", SampleSettings(distance=0, rank=ALL), nothing).concept
    np.testing.assert_allclose(dense.of(made), dense.mean, atol=2e-4)


def test_a_sample_is_the_mean_and_a_step_along_each_component():
    memories = apart()
    space, dense = space_of(memories), Dense(concepts_of(memories))
    settings = SampleSettings(seed=3, distance=1.5, components=4, rank=ALL)
    made = sample(gathered(memories), "new", settings, nothing).concept
    along_each = dense.axes @ (dense.of(made) - dense.mean)
    np.testing.assert_allclose(along_each[4:], 0, atol=2e-4)
    z = torch.randn(4, generator=torch.Generator().manual_seed(3), dtype=torch.float64).numpy()
    expected = 1.5 * np.abs(z) * np.sqrt(dense.variances[:4] / (N - 1))
    np.testing.assert_allclose(np.abs(along_each[:4]), expected, rtol=1e-2, atol=2e-4)
    assert np.linalg.norm(dense.of(made) - dense.mean) == pytest.approx(np.linalg.norm(expected), rel=1e-2)
    again, other = (
        sample(gathered(memories), "new", replace(settings, seed=seed), nothing).concept for seed in (3, 4)
    )
    assert again.change.tensors().keys() == made.change.tensors().keys()
    assert again.digest() == made.digest() != other.digest()
    assert float(space.drawn(3, 1.5, 4).sum()) == pytest.approx(1)


def test_samples_are_as_far_from_the_mean_as_the_concepts():
    space = space_of(apart())
    squares = [space.size(space.drawn(seed, 1.0, 0) - space.mean()) ** 2 for seed in range(2000)]
    assert np.mean(squares) == pytest.approx(N / (N - 1), rel=0.05)
    of_concepts = [torch.eye(N, dtype=torch.float64)[i] - space.mean() for i in range(N)]
    assert np.mean([space.size(step) ** 2 for step in of_concepts]) == pytest.approx(1)
    assert space.nearest(torch.eye(N, dtype=torch.float64)[5])[0] == 5


def test_what_a_sample_is_called_and_says_of_itself():
    made = sample(gathered(apart()), "My Face", SampleSettings(seed=1), nothing)
    found = made.concept
    assert (found.name, found.token, found.class_word, found.kind) == (
        "My Face",
        "<my-face>",
        "ball",
        "subject",
    )
    assert found.captions == ("a photo of <my-face>", "<my-face> at night")
    assert found.settings["space"]["sample"]["seed"] == 1 and found.method == OutOfSpace.name
    assert any("9 concepts by directions; 8 of 8 components hold 100%" in line for line in made.lines)
    assert any("fewer than 40" in line for line in made.lines)
    with pytest.raises(ValueError, match="name is empty"):
        sample(gathered(apart()), " ", SampleSettings(), nothing)
    assert space_of(apart()).used(99) == space_of(apart()).used(0) == 8


# --- edits


def test_an_edit_by_nothing_is_the_concept_itself():
    memories = apart()
    members = gathered(memories)
    for one in members.concepts:
        made = edit(members, one, "<c1>, c2", "", "", EditSettings(strength=0), nothing)
        assert made.memory.digest() == memory(one).digest()
    renamed = edit(
        members, members.concepts[3], "<c1>", "", "copy", EditSettings(strength=0), nothing
    ).concept
    assert renamed.token == "<copy>" and renamed.captions[0] == "a photo of <copy>"
    np.testing.assert_array_equal(weights_of(renamed), weights_of(members.concepts[3]))
    np.testing.assert_array_equal(vectors_of(renamed), vectors_of(members.concepts[3]))


@pytest.mark.parametrize("components", [0, 3])
def test_an_edit_is_a_step_from_the_mean_of_one_list_to_that_of_the_other(components):
    memories = apart()
    members, dense = gathered(memories), Dense(concepts_of(memories))
    settings = EditSettings(strength=0.7, components=components, rank=ALL)
    made = edit(members, members.concepts[4], "<c0>\nc1, <c4>", "<c2> , c7", "", settings, nothing).concept
    way = dense.points[[0, 1, 4]].mean(0) - dense.points[[2, 7]].mean(0)
    axes = dense.axes[: components or N - 1]
    expected = dense.points[4] + 0.7 * (axes.T @ (axes @ way))
    np.testing.assert_allclose(dense.of(made), expected, atol=3e-4)
    assert (made.name, made.token) == ("c4", "<c4>")


def test_without_a_second_list_all_others_are_meant_and_edits_add_up():
    memories = apart()
    members, dense = gathered(memories), Dense(concepts_of(memories))
    settings = EditSettings(strength=0.5, rank=ALL)
    start = sample(members, "new", SampleSettings(seed=2, rank=ALL), nothing)
    members.check_fits(start.concept, start.memory.base)
    once = edit(members, start.concept, "c0,c1", "", "", settings, nothing)
    twice = edit(members, once.concept, "c0,c1", "", "", settings, nothing)
    way = dense.points[:2].mean(0) - dense.points[2:].mean(0)
    np.testing.assert_allclose(dense.of(twice.concept), dense.of(start.concept) + way, atol=6e-4)
    assert twice.concept.settings["space"]["from"]["settings"] == once.concept.settings


def test_the_share_told_apart_leaves_each_concept_out_of_the_means():
    memories = apart()
    space, dense = space_of(memories), Dense(concepts_of(memories))
    groups = [0, 3, 5, 8], [1, 2, 6]
    shares = []
    for own, other in (groups, groups[::-1]):
        right = 0
        for place in own:
            near = dense.points[[p for p in own if p != place]].mean(0)
            far = dense.points[other].mean(0)
            point = dense.points[place]
            right += np.linalg.norm(point - near) < np.linalg.norm(point - far)
        shares.append(right / len(own))
    assert space.told_apart(*groups, 0) == pytest.approx(sum(shares) / 2)
    trait = chance(1, DIM, seed=99).float()
    marked = [
        memory(replace(c, token_vectors={"clip_l": c.token_vectors["clip_l"] + (i % 2) * 20 * trait}))
        for i, c in enumerate(concepts_of(memories))
    ]
    assert space_of(marked).told_apart([1, 3, 5, 7], [0, 2, 4, 6, 8], 0) == 1
    told = edit(
        gathered(marked), concepts_of(marked)[0], "c1,c3,c5,c7", "", "", EditSettings(), nothing
    ).lines
    assert any("100% of the 4 and 5 concepts listed lie nearer" in line for line in told)


@pytest.mark.parametrize(
    ("more", "less", "fault"),
    [
        ("", "<c1>", '"more like" names no concept'),
        ("<c1>, <mug>", "", r"No concept '<mug>' in this space; it has 9: <c0>"),
        ("<c1>, c1", "", "<c1> is named twice"),
        ("<c1>", "c2, c1", "<c1> stands in both"),
        (",".join(f"c{i}" for i in range(N)), "", "names every concept"),
    ],
)
def test_lists_that_say_nothing_are_refused(more, less, fault):
    members = gathered(apart())
    with pytest.raises(ValueError, match=fault):
        edit(members, members.concepts[0], more, less, "", EditSettings(), nothing)


# --- what is kept


@pytest.mark.parametrize("parts", [2, 30])
def test_of_a_sum_the_largest_directions_are_kept(parts):
    """By small factors, or in full where there are more of them than the matrix has rows."""
    pairs = [(0.5 - i, (chance(14, 2, seed=i), chance(2, WIDTH, seed=90 + i))) for i in range(parts)]
    dense = sum(w * (up @ down) for w, (up, down) in pairs)
    part, kept, there = summed(pairs, 3)
    left, sizes, right = torch.linalg.svd(dense, full_matrices=False)
    torch.testing.assert_close(
        part.in_full().double(), left[:, :3] * sizes[:3] @ right[:3], rtol=1e-4, atol=1e-4
    )
    assert kept == pytest.approx(float(sizes[:3].square().sum()))
    assert there == pytest.approx(float(dense.square().sum()))
    assert float(part.left.abs().max()) == pytest.approx(1)
    whole, kept, there = summed(pairs, 99)
    assert whole.right.shape[0] == min(2 * parts, WIDTH) and kept == pytest.approx(there)


def test_what_was_made_is_kept_in_a_file_and_forgotten_without_a_rest(tmp_path):
    members = gathered(apart())
    drawn = sample(members, "new", SampleSettings(rank=3), nothing)
    moved = edit(members, members.concepts[0], "c1", "c2", "moved", EditSettings(), nothing)
    both = drawn.memory.with_learned(moved.concept)
    save_memory(tmp_path / "both.safetensors", both)
    again = load_memory(tmp_path / "both.safetensors")
    assert again.digest() == both.digest()
    assert again.concepts[1].settings["space"]["more_like"] == ["<c1>"]
    assert "rank 3, out of a space" in again.summary()
    assert forget(again, "new").exact
    with pytest.raises(ValueError, match="not learned further"):
        drawn.concept.change.refined(None, lambda name: None)


def test_a_space_of_tokens_alone():
    memories = [
        memory(concept(f"c{i}", NoChange(LAYOUT), chance(2, DIM, seed=i).float(), "token alone"))
        for i in range(5)
    ]
    members = gathered(memories)
    made = sample(members, "new", SampleSettings(distance=0), nothing).concept
    mean = np.mean([c.token_vectors["clip_l"].numpy() for c in members.concepts], axis=0)
    np.testing.assert_allclose(made.token_vectors["clip_l"].numpy(), mean, atol=1e-6)
    assert not any(change.any() for change in memory(made).changes().values())


# --- what is no space


def test_what_makes_no_space_is_refused():
    def refused(fault, *memories):
        with pytest.raises(ValueError, match=fault):
            gathered(memories)

    first, second, third, *_ = apart()
    refused("There are 2 concepts; a space needs 3", first, second)
    one_more = concepts_of([third])[0]
    refused(
        r"more than one method: directions \(2\), lora \(1\)",
        first,
        second,
        memory(replace(one_more, method="lora")),
    )
    refused(
        r"more than one kind: subject \(2\), style \(1\)",
        first,
        second,
        memory(replace(one_more, kind="style")),
    )
    other = ModelIdentity("SD1", "cd" * 32)
    refused(r"Memory 1 was made on .* memory 3 \(c2\) on", first, second, replace(third, base=other))
    stacked = replace(one_more, settings={"after": {"concepts": 2}})
    refused(r"'c2' was learned on top of 2 other concept.*alone", first, second, memory(stacked))
    wide = replace(one_more, token_vectors={"clip_l": torch.zeros(2, DIM)})
    refused(r"\[1, 6\].* 'c2' .*\[2, 6\]", first, second, memory(wide))
    refused("A concept named 'c0' has been learned already", first, second, memory(along("c0", 77)))
    made = [sample(gathered(apart()), f"s{i}", SampleSettings(seed=i), nothing).memory for i in range(3)]
    refused("'s0' was made by concept space, with other concepts in view", *made)
    dense = DenseChange(LAYOUT, {n: torch.zeros(s).half() for n, s, _ in LAYOUT.slices()})
    whole = [memory(concept(f"d{i}", dense, torch.zeros(1, DIM), "all K/V")) for i in range(3)]
    refused("'d0' was learned by all K/V, which takes the place", *whole)
    assert len(gathered([first, second, third, first])) == 3  # the same concept twice is one


def test_a_concept_of_another_kind_cannot_be_moved():
    members = gathered(apart())
    one = members.concepts[0]
    with pytest.raises(ValueError, match="of its own base only"):
        members.check_fits(one, ModelIdentity("SD1", "cd" * 32))
    with pytest.raises(ValueError, match="as many vectors"):
        members.check_fits(replace(one, token_vectors={"clip_l": torch.zeros(2, DIM)}), BASE)
    dense = DenseChange(LAYOUT, {n: torch.zeros(s).half() for n, s, _ in LAYOUT.slices()})
    with pytest.raises(ValueError, match="by all K/V, did not move weights as those of the space did"):
        members.check_fits(replace(one, change=dense, method="all K/V"), BASE)


def test_settings_lie_in_their_ranges():
    for wrong in ({"components": -1}, {"rank": 0}, {"token_share": 1.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SpaceSettings(**wrong)
    with pytest.raises(ValueError, match="strength is 11"):
        EditSettings(strength=11)
    with pytest.raises(ValueError, match="distance is -1"):
        SampleSettings(distance=-1)
