"""CLIP's tokenizer as the tools use it, and cut down to the words of a world."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch

from small_base.judge.judge_tokenizer import reduced_files
from small_base.training.tokenizer import Tokenizer, first_end, trimmed

Files = dict[str, str]


@pytest.fixture(scope="module")
def tokenizer(tokenizer_files: Files) -> Tokenizer:
    return Tokenizer(tokenizer_files)


@pytest.fixture(scope="module")
def words_of(tokenizer_files: Files) -> Callable[[torch.Tensor, Files], list[str]]:
    """The tokens behind ids, without the end tokens."""

    def words(ids: torch.Tensor, files: Files) -> list[str]:
        named = {number: word for word, number in json.loads(files["vocab.json"]).items()}
        return [named[int(number)] for number in ids if named[int(number)] != "<|endoftext|>"]

    return words


def test_texts_are_padded_with_end_tokens(
    tokenizer: Tokenizer, tokenizer_files: Files, words_of: Callable[..., list[str]]
) -> None:
    ids = tokenizer(["a RED  cat", "", "cats"])
    assert ids.shape == (3, 77) and ids.dtype == torch.int64
    assert (tokenizer.start, tokenizer.end) == (516, 517)
    assert words_of(ids[0], tokenizer_files) == ["<|startoftext|>", "a</w>", "red</w>", "cat</w>"]
    assert words_of(ids[1], tokenizer_files) == ["<|startoftext|>"]
    assert words_of(ids[2], tokenizer_files) == ["<|startoftext|>", "ca", "t", "s</w>"]
    assert bool((ids[1, 1:] == tokenizer.end).all())


def test_long_texts_are_cut(tokenizer: Tokenizer) -> None:
    ids = tokenizer(["cat " * 200])
    assert ids.shape == (1, 77)
    assert int(ids[0, 0]) == tokenizer.start and int(ids[0, -1]) == tokenizer.end
    assert int((ids == tokenizer.end).sum()) == 1


def test_texts_end_at_their_first_end_token(tokenizer: Tokenizer) -> None:
    ids = tokenizer(["a red cat", "a cat", ""])
    assert first_end(ids, tokenizer.end).tolist() == [4, 3, 1]
    cut = trimmed(ids, tokenizer.end)
    assert cut.shape == (3, 5) and torch.equal(cut, ids[:, :5])
    assert first_end(cut, tokenizer.end).tolist() == [4, 3, 1]


def test_used_ids_are_in_order_and_hold_both_ends(tokenizer: Tokenizer, tokenizer_files: Files) -> None:
    vocabulary = json.loads(tokenizer_files["vocab.json"])
    used = tokenizer.used_in(["a cat", "cat"])
    assert used == sorted([vocabulary["a</w>"], vocabulary["cat</w>"], tokenizer.start, tokenizer.end])


def test_a_world_without_a_tokenizer_is_named(tokenizer_files: Files) -> None:
    with pytest.raises(ValueError, match=r"no merges\.txt, vocab\.json"):
        Tokenizer({})
    with pytest.raises(ValueError, match=r"no merges\.txt of"):
        Tokenizer({"vocab.json": tokenizer_files["vocab.json"]})


def test_reduced_files_keep_the_used_words_whole(
    tokenizer: Tokenizer, tokenizer_files: Files, words_of: Callable[..., list[str]]
) -> None:
    files = reduced_files(tokenizer_files, tokenizer.used_in(["a cat"]))
    assert files["merges.txt"] == "#version: 0.2\nc a\nca t</w>\n"
    small = Tokenizer(files)
    # 512 bytes, two merges, start and end: in this order, with no gaps.
    assert sorted(json.loads(files["vocab.json"]).values()) == list(range(516))
    assert (small.start, small.end) == (514, 515)
    for text in ("a cat", "cats, cat!", "caé"):
        assert words_of(small([text])[0], files) == words_of(tokenizer([text])[0], tokenizer_files)
    # What is used no longer falls into pieces: no word is unknown.
    assert words_of(small(["red"])[0], files) == ["<|startoftext|>", "r", "e", "d</w>"]


def test_reduced_files_of_everything_are_the_same(tokenizer_files: Files) -> None:
    everything = range(len(json.loads(tokenizer_files["vocab.json"])))
    assert reduced_files(tokenizer_files, everything) == {
        "vocab.json": json.dumps(json.loads(tokenizer_files["vocab.json"]), ensure_ascii=False),
        "merges.txt": tokenizer_files["merges.txt"],
    }


def test_files_of_two_tokenizers_are_refused(tokenizer: Tokenizer, tokenizer_files: Files) -> None:
    used = tokenizer.used_in(["cat"])
    with pytest.raises(ValueError, match=r"'cat</w>'.*two tokenizers"):
        reduced_files({**tokenizer_files, "merges.txt": "#version: 0.2\nx y\n"}, used)
