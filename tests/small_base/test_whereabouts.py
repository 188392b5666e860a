"""Names are found in a text, and which of two things is where is learned from what is said at them."""

from __future__ import annotations

import random

import pytest
import torch

from small_base.training.tokenizer import Tokenizer
from small_base.training.whereabouts import Whereabouts, mentions
from small_base.world.pictures import Batch
from small_base.world.placing import SceneSampler
from small_base.world.wording import Shares, caption
from small_base.world.world import World


@pytest.mark.parametrize(
    ("said", "names", "expected"),
    [
        ([0, 5, 6, 7, 9], [[5], [7]], [1, 3]),
        ([0, 5, 6, 7, 9], [[6, 7], [5]], [3, 1]),
        ([0, 4, 5, 8, 5, 9], [[5], [4, 5]], [4, 2]),  # the "book" that is not the "red book"
        ([0, 5, 6, 7, 9], [[5], [8]], None),
        ([0, 5, 6, 5, 9], [[5], [6]], None),
    ],
)
def test_names_are_found_where_they_are_said_once(
    said: list[int], names: list[list[int]], expected: list[int] | None
) -> None:
    assert mentions(said, names) == expected


def test_what_is_said_at_a_name_tells_where_its_thing_is(tiny_world: World) -> None:
    tokenizer = Tokenizer(tiny_world.tokenizer_files)
    rng = random.Random(0)
    shares = Shares(category=0.0, relation=1.0)
    scenes = SceneSampler(tiny_world, 64, 0, pairs=1.0).sample(64, rng)
    captions = [caption(scene, tiny_world, rng, shares=shares) for scene in scenes]
    batch = Batch(torch.zeros(64, 3, 8, 8), captions, scenes)
    ids = tokenizer(captions)
    torch.manual_seed(0)
    known = torch.randn(*ids.shape, 768)  # enough to know every token of every text by
    where = Whereabouts(tiny_world, tokenizer)
    optimizer = torch.optim.Adam(where.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = where.loss(known, ids, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1.0 and losses[-1] < 0.1
    assert where.loss(torch.zeros_like(known), ids, batch) > 1.0


def test_single_things_are_left_alone(tiny_world: World) -> None:
    tokenizer = Tokenizer(tiny_world.tokenizer_files)
    scenes = SceneSampler(tiny_world, 64, 0, pairs=0.0).sample(3, random.Random(0))
    batch = Batch(torch.zeros(3, 3, 8, 8), ["a cat"] * 3, scenes)
    where = Whereabouts(tiny_world, tokenizer)
    assert where.loss(torch.randn(3, 77, 768), tokenizer(batch.captions), batch) == 0
