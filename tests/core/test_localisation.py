"""Where a concept lives: held against errors of memories that were cut by hand."""

from dataclasses import replace
from functools import partial
from itertools import product

import pytest
import torch

from cns_core.evaluation.place_map import heat_map, report
from cns_core.identity import ModelIdentity
from cns_core.localisation import (
    ALL,
    EVERYWHERE,
    KEYS,
    VALUES,
    LocateSettings,
    Switched,
    localise,
    restricted,
)
from cns_core.memory import ConceptMemory, LearnedConcept
from cns_core.methods.cns.change import CnsChange
from cns_core.methods.cns.masks import NeuronMask
from cns_core.methods.dense_kv import DenseChange
from cns_core.methods.directions.change import DirectionsChange
from cns_core.noised import NoisedPictures, even_levels, noised
from cns_core.places import places_of
from cns_core.training import LatentImage

TOKEN = "<new>"
SAMPLES = 12


def rand(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def dense(layout, sign=1.0, seed=1, only=None):
    changes = {n: sign * 0.03 * rand(*s, seed=seed + i) for i, (n, s, _) in enumerate(layout.slices())}
    return DenseChange(
        layout, {n: (c if only is None or n in only else 0 * c).half() for n, c in changes.items()}
    )


def neurons(layout, sign=1.0, seed=2):
    mask = NeuronMask.from_dense(layout, {n: rand(*s, seed=seed) > 0.5 for n, s, _ in layout.slices()})
    return CnsChange(mask, (sign * 0.05 * rand(mask.count(), seed=seed)).half())


def directions(layout, sign=1.0, seed=3):
    answers = sign * 0.03 * rand(sum(out for out, _ in layout.shapes), 2, seed=seed)
    return DirectionsChange(layout, answers.half(), rand(2, layout.shapes[0][1], seed=seed), torch.ones(2))


def memory(toy, *changes, place=0):
    """The concept that is looked for is at that place."""
    concepts = [
        LearnedConcept(
            name=f"c{i}",
            token=TOKEN if i == place else f"<c{i}>",
            class_word="word1",
            kind="subject",
            captions=("a photo of it",),
            method="any",
            change=change,
            token_vectors={"toy": rand(1, 24, seed=50 + i)},
            settings={},
            losses={},
            learned_at="",
        )
        for i, change in enumerate(changes)
    ]
    return ConceptMemory(ModelIdentity("toy", "0"), toy.layout, tuple(concepts))


def images(sizes=((4, 4),), masks=False):
    return [
        LatentImage(
            rand(2, *size, seed=i),
            (f"a photo of {TOKEN}", f"the {TOKEN}"),
            ("a photo of word1", "the word1"),
            (rand(1, *size, seed=9 + i) > 0).float() if masks else None,
        )
        for i, size in enumerate(sizes * 2)
    ]


@pytest.fixture
def located(toy):
    def call(of, on_progress=lambda done, total: None, keys_and_values=False):
        toy.known = {c.token: c.token_vectors["toy"][0] for c in of.concepts}
        switched = Switched(of, TOKEN, toy.device)
        places = places_of(of.layout, of.concept(TOKEN).change.layout)
        with torch.no_grad(), toy.weights_patched(switched.weight_functions()):
            pictures = NoisedPictures(toy, images(), SAMPLES, 0, masked=False)
            return localise(pictures, TOKEN, switched, places, keys_and_values, on_progress)

    return call


def error(toy, of):
    """With a whole memory's changes laid on the weights."""
    toy.known = {c.token: c.token_vectors["toy"][0] for c in of.concepts}
    functions = {name: partial(torch.add, laid.in_full()) for name, laid in of.laid().items()}
    with torch.no_grad(), toy.weights_patched(functions):
        return float(torch.cat(list(NoisedPictures(toy, images(), SAMPLES, 0, masked=False).errors())).mean())


def helpful(toy, make, before=(), after=()):
    """A memory whose concept lowers the error: the first of some at random."""
    for seed, sign in product(range(20), (1.0, -1.0)):
        of = memory(toy, *before, make(toy.layout, sign, 100 * seed), *after, place=len(before))
        if error(toy, of) < error(toy, restricted(of, TOKEN, ())):
            return of
    raise AssertionError("no change at random helps")


@pytest.mark.parametrize("make", [dense, neurons, directions])
def test_shares_are_those_of_memories_that_are_cut(toy, located, make):
    of = helpful(toy, make, [dense(toy.layout, seed=70)], [directions(toy.layout, seed=80)])
    found = located(of, keys_and_values=True)
    every = frozenset(toy.layout.names)
    alone, whole = error(toy, restricted(of, TOKEN, ())), error(toy, of)
    assert found.token_alone == pytest.approx(alone) and found.whole == pytest.approx(whole)
    for place in places_of(toy.layout, toy.layout):
        for part, names in ((ALL, place.names), (KEYS, place.keys), (VALUES, place.values)):
            share = found.shares[place.label][part]
            only = (alone - error(toy, restricted(of, TOKEN, names))) / (alone - whole)
            lost = (error(toy, restricted(of, TOKEN, every - {*names})) - whole) / (alone - whole)
            assert (share.only, share.lost) == pytest.approx((only, lost), abs=1e-3)
    together = found.shares[EVERYWHERE]
    assert (together[ALL].only, together[ALL].lost) == pytest.approx((1, 1))
    assert together[KEYS].only == pytest.approx(1 - together[VALUES].lost)


def test_all_of_a_concept_in_one_layer_is_found_there(toy, located):
    place = places_of(toy.layout, toy.layout)[1]
    of = helpful(toy, partial(dense, only=place.values))
    found = located(of, keys_and_values=True)
    for label, parts in found.shares.items():
        for part, share in parts.items():
            here = float(label in (place.label, EVERYWHERE) and part != KEYS)
            assert (share.only, share.lost, share.doubt) == pytest.approx((here, here, 0), abs=1e-9)


def test_the_class_word_is_read_without_the_concept(toy, located):
    of = helpful(toy, dense)
    found = located(of)

    toy.known = {}
    toy_images = [replace(image, captions=image.class_captions) for image in images()]
    with torch.no_grad():
        errors = torch.cat(list(NoisedPictures(toy, toy_images, SAMPLES, 0, masked=False).errors()))
    assert found.class_word == pytest.approx(float(errors.mean()))

    way = (found.class_word - found.token_alone) / (found.class_word - found.whole)
    assert found.by_the_token() == pytest.approx(way)


def test_what_was_not_learned_in_the_weights_cannot_be_found(toy, located):
    with pytest.raises(ValueError, match=f"nothing of {TOKEN} to be found"):
        located(memory(toy, dense(toy.layout, 0.0)))


@pytest.mark.parametrize("apart, variants", [(False, 3 * 2), (True, 3 * 6 + 2)])
def test_progress_is_told_and_may_stop(toy, located, apart, variants):
    seen = []
    located(helpful(toy, dense), lambda *told: seen.append(told), keys_and_values=apart)
    total = 1 + 2 + variants  # the class word, nothing, all
    assert seen == [(done, total) for done in range(1, total + 1)]

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        located(helpful(toy, dense), stop)


@pytest.mark.parametrize("make", [dense, neurons, directions])
def test_a_restricted_memory_has_the_concept_there_alone(toy, make):
    of = memory(toy, dense(toy.layout, seed=70), make(toy.layout), directions(toy.layout, seed=80), place=1)
    names = set(toy.layout.names[1:3])
    part = restricted(of, "c1", names)
    full, none, cut = (m.laid() for m in (of, of.without(TOKEN), part))
    for name in toy.layout.names:
        expected = (full if name in names else none)[name]
        assert torch.equal(cut[name].in_full(), expected.in_full())
    assert part.token_vectors().keys() == of.token_vectors().keys()
    assert list(part.whole.names) == list(of.whole.names)


def test_noise_levels_are_spread_evenly(toy):
    levels = replace(toy.levels, alphas_cumprod=torch.linspace(0.99, 0.01, 1000))
    t = even_levels(8, levels, torch.Generator().manual_seed(1))
    assert sorted((t // 125).tolist()) == list(range(8)) and t.tolist() != sorted(t.tolist())
    z0 = rand(8, 2, 4, 4, seed=0)
    found = noised(z0, t, levels, torch.Generator().manual_seed(2))
    noise = torch.randn(z0.shape, generator=torch.Generator().manual_seed(2))
    alpha = levels.alphas_cumprod[t].reshape(-1, 1, 1, 1)
    torch.testing.assert_close(found.z_t, alpha.sqrt() * z0 + (1 - alpha).sqrt() * noise)
    assert torch.equal(found.target, noise)


def test_pictures_of_any_size_take_part_and_masks_count(toy):
    toy.known = {TOKEN: rand(24, seed=50)}
    toy.predict = lambda z_t, *_: torch.zeros_like(z_t)  # so that errors are squares of the noise
    shown = images(sizes=((4, 4), (4, 6), (2, 8)), masks=True)
    whole, masked = [
        torch.cat(list(NoisedPictures(toy, shown, SAMPLES, 0, on).errors())) for on in (False, True)
    ]
    assert len(whole) == SAMPLES and torch.isfinite(masked).all() and not torch.equal(whole, masked)
    emptied = [replace(image, mask=torch.ones_like(image.mask)) for image in shown]
    torch.testing.assert_close(
        torch.cat(list(NoisedPictures(toy, emptied, SAMPLES, 0, True).errors())), whole
    )


@pytest.mark.parametrize("apart", [False, True])
def test_the_picture_and_the_words(toy, located, apart):
    found = located(helpful(toy, dense), keys_and_values=apart)
    picture, text = heat_map(found), report(found)
    assert picture.shape[0] == 1 and picture.shape[3] == 3
    assert bool((picture[0, :4] == 1).all()) and float(picture.min()) < 0.5
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 3 + apart
    assert {row.count("|") for row in rows} == {2 + (6 if apart else 2)}
    first = found.shares["blocks.0"][ALL]
    assert rows[2].startswith(f"| blocks.0 | {100 * first.only:.0f} % | {100 * first.lost:.0f} %")


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="samples is 1"):
        LocateSettings(samples=1)
