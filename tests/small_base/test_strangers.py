"""Pictures of what no word names, and the words that are made for them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from small_base.layout import SIZES
from small_base.training.strangers import WORDS, Strangers, in_manner
from small_base.training.text_encoder import TextEncoder
from small_base.training.tokenizer import Tokenizer
from small_base.training.vae import Vae
from small_base.world.world import World

SMALL = SIZES["s"]


@pytest.fixture(scope="module")
def parts(tiny_world: World) -> tuple[Vae, TextEncoder, Tokenizer]:
    torch.manual_seed(0)
    return Vae().eval(), TextEncoder(1, range(600)).eval(), Tokenizer(tiny_world.tokenizer_files)


def strangers(world: World, parts: tuple[Vae, TextEncoder, Tokenizer], seed: int = 0) -> Strangers:
    return Strangers(world, SMALL, *parts, seed)


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_one_token(tiny_world: World, word: str) -> None:
    tokenizer = Tokenizer(tiny_world.tokenizer_files)
    start, _, *rest = tokenizer([word])[0].tolist()
    assert start == tokenizer.start and set(rest) == {tokenizer.end}


def test_a_seed_draws_the_same_again(tiny_world: World, parts: tuple[Vae, TextEncoder, Tokenizer]) -> None:
    stranger = strangers(tiny_world, parts)
    pictures, said = stranger.batch(6)
    assert pictures.shape == (6, 3, 64, 64) and said.shape == (6, 77, 768)
    assert pictures.min() >= 0 and pictures.max() <= 1 and said.isfinite().all()
    others = stranger.batch(6)
    assert not torch.equal(others[0], pictures)
    again = strangers(tiny_world, parts).batch(6)
    assert torch.equal(again[0], pictures) and torch.equal(again[1], said)


def test_a_word_says_what_is_to_be_seen(tiny_world: World, parts: tuple[Vae, TextEncoder, Tokenizer]) -> None:
    """Two things that look the same are told by the same word, and others by other words."""
    twins = tiny_world.sprites.copy()
    twins[1] = twins[0]
    stranger = strangers(replace(tiny_world, sprites=twins), parts)
    words = {row[:2]: stranger._thing_words[at] for row, at in stranger._thing_rows.items() if not row[2]}
    assert torch.allclose(words[0, 0], words[1, 0], atol=1e-5)
    assert (words[0, 0] - words[2, 0]).norm() > 0.1 * words[0, 0].norm()


def test_pairs_tell_each_thing_by_its_own_word(
    tiny_world: World, parts: tuple[Vae, TextEncoder, Tokenizer]
) -> None:
    rest = tuple(replace(thing, small=thing.name == "cat") for thing in tiny_world.objects)
    stranger = strangers(replace(tiny_world, objects=rest), parts)
    words = stranger._thing_words
    for _ in range(40):
        drawn = stranger._pair()
        first, second = drawn.scene.placed
        assert first.object_index != second.object_index and drawn.caption.count("*") == 1
        assert not first.mirror and not second.mirror
        rows = [stranger._thing_rows[one.object_index, one.style_index, False] for one in (first, second)]
        assert torch.equal(drawn.words[0], words[rows[0]])
        if len(drawn.words) == 2:
            assert "~" in drawn.caption and torch.equal(drawn.words[1], words[rows[1]])
        else:
            assert "~" not in drawn.caption and "cat" in drawn.caption


def test_what_is_held_out_is_never_shown(
    tiny_world: World, parts: tuple[Vae, TextEncoder, Tokenizer]
) -> None:
    assert [thing.name for thing in tiny_world.objects if thing.held_out] == ["sun"]
    stranger = strangers(tiny_world, parts)
    assert [thing.name for thing in stranger._things.objects] == ["cat", "pea", "ball"]
    assert len(stranger._thing_words) == 3 * 2 * 2 * 2  # objects, styles, colours, sides
    held_out = replace(tiny_world, held_out_scenes=frozenset({"beach"}))
    with pytest.raises(ValueError, match="no place"):
        strangers(held_out, parts)


def test_all_that_is_not_small_is_used(tiny_world: World, parts: tuple[Vae, TextEncoder, Tokenizer]) -> None:
    rest = tuple(replace(thing, small=thing.name == "cat") for thing in tiny_world.objects)
    stranger = strangers(replace(tiny_world, objects=rest), parts)
    assert [thing.name for thing in stranger._things.objects] == ["cat", "pea", "ball"]
    assert [thing.name for thing in stranger._known.objects] == ["cat"]


def test_a_manner_redraws_in_its_colours() -> None:
    picture = torch.zeros(1, 3, 16, 16)
    picture[..., 8:] = 1
    figures = torch.tensor(
        [1.0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 0, 1, 0]
    )  # red, green, blue, yellow ink, no rest
    drawn = in_manner(picture, figures)
    assert drawn[0, :, 8, 0].tolist() == [1, 0, 0] and drawn[0, :, 8, 15].tolist() == [0, 0, 1]
    assert torch.allclose(drawn[0, :, 8, 8], torch.tensor([1.0, 1.0, 0.0]))
    figures[13] = 1.0
    assert torch.allclose(in_manner(picture, figures), picture)
