"""How a text encoder reads a word where it stands in captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...method import Probe, Taught

_MOST = 16  # captions, spread over all of them
_AT_A_STEP = 4  # of these, in turns; the paper looks at those of its batch, which is as large


@dataclass(frozen=True, eq=False)
class Places:
    """A word where it comes first in each of some captions.

    marks: bool `(captions, tokens)`, true for the word's own vectors.
    """

    captions: tuple[str, ...]
    marks: Tensor

    def reading(self, probe: Probe) -> Tensor:
        """The mean of the word's features over its vectors and the captions, `(d,)` float64 on the CPU."""
        features = probe.features(self.captions).cross.to("cpu", torch.float64)
        weights = self.marks / self.marks.sum(dim=1, keepdim=True)
        return torch.einsum("ntd,nt->d", features, weights.double()) / len(features)

    def of_step(self, step: int) -> Places:
        """The captions whose turn it is."""
        count = len(self.captions)
        turn = [(step * _AT_A_STEP + n) % count for n in range(min(_AT_A_STEP, count))]
        return Places(tuple(self.captions[n] for n in turn), self.marks[turn])


def places_of(taught: Taught, probe: Probe) -> tuple[Places, Places]:
    """Of a concept's token in its captions, and of its class word in the token's place.

    A caption's words are counted up to the word. One where that does not add up, since the tokenizer reads
    across the word's borders or takes brackets around it for a weight, is left out.

    Raises:
        ValueError: it adds up in no caption.
    """
    few = taught.captions[:: -(-len(taught.captions) // _MOST)]
    found = [
        _places(
            [c.replace(taught.token, word) for c in few], [c.split(taught.token)[0] for c in few], word, probe
        )
        for word in (taught.token, taught.class_word)
    ]
    both = [n for n in range(len(few)) if all(marks[n].any() for marks in found)]
    if not both:
        raise ValueError(
            f"No caption tells where the text encoder reads {taught.token}, e.g. {few[0]!r}. Write it there "
            "as a word of its own, with blanks around it and no brackets."
        )
    captions = tuple(few[n] for n in both)
    about_class = tuple(caption.replace(taught.token, taught.class_word) for caption in captions)
    return Places(captions, found[0][both]), Places(about_class, found[1][both])


def _places(captions: Sequence[str], before: Sequence[str], word: str, probe: Probe) -> Tensor:
    """Marks of a word after what stands before it; none in a caption whose words do not add up."""
    after = [caption[len(start) + len(word) :] for caption, start in zip(captions, before, strict=True)]
    counts = [_count(probe, texts) for texts in (before, after)]
    length = int(_count(probe, [word])[0])
    is_word = probe.features(captions).is_word.cpu()
    marks = torch.zeros_like(is_word)
    for row, words, start, rest in zip(marks, is_word, *counts, strict=True):
        if int(words.sum()) == start + length + rest:
            row[words.nonzero()[start : start + length, 0]] = True
    return marks


def _count(probe: Probe, texts: Sequence[str]) -> list[int]:
    counts: list[int] = probe.features(texts).is_word.sum(dim=1).tolist()
    return counts
