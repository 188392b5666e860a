"""CLIP's tokenizer cut down to the words of a world: the whole token table would be most of a small CLIP."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise

_WORD_END = "</w>"
_START, _END = "<|startoftext|>", "<|endoftext|>"


def reduced_files(files: dict[str, str], used_ids: Iterable[int]) -> dict[str, str]:
    """vocab.json and merges.txt with which the used tokens are tokens still; other words fall into pieces.

    Args:
        files: CLIP's own vocab.json and merges.txt.
        used_ids: ids in that vocabulary.
    """
    vocabulary: dict[str, int] = json.loads(files["vocab.json"])
    header, *lines = files["merges.txt"].splitlines()
    rank = {tuple(line.split()): number for number, line in enumerate(lines) if line.strip()}
    tokens = {number: token for token, number in vocabulary.items()}
    needed: set[tuple[str, ...]] = set()
    for number in used_ids:
        if tokens[number] not in (_START, _END):
            needed.update(_merges_of(tokens[number], rank))
    kept = sorted(needed, key=rank.__getitem__)
    # The first 512 are the bytes, inside a word and at its end: with them every text can be written.
    basic = [tokens[number] for number in range(512)]
    words = dict.fromkeys([*basic, *("".join(pair) for pair in kept), _START, _END])
    return {
        "vocab.json": json.dumps({word: number for number, word in enumerate(words)}, ensure_ascii=False),
        "merges.txt": "\n".join([header, *(" ".join(pair) for pair in kept)]) + "\n",
    }


def _merges_of(token: str, rank: dict[tuple[str, ...], int]) -> list[tuple[str, ...]]:
    """The merges that byte-pair encoding makes on its way from bytes to `token`."""
    pieces: Sequence[str] = list(token.removesuffix(_WORD_END))
    if token.endswith(_WORD_END):
        pieces = [*pieces[:-1], pieces[-1] + _WORD_END]
    made = []
    while len(pieces) > 1:
        best = min(pairwise(pieces), key=lambda pair: rank.get(pair, len(rank)))
        if best not in rank:
            raise ValueError(
                f"no merges lead to the token {token!r}: vocab.json and merges.txt are of two tokenizers"
            )
        made.append(best)
        joined, index = [], 0
        while index < len(pieces):
            if tuple(pieces[index : index + 2]) == best:
                joined.append("".join(best))
                index += 2
            else:
                joined.append(pieces[index])
                index += 1
        pieces = joined
    return made
