"""Text features of what is erased, each beside the one that it is led to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..text_features import TextFeatures
from .wording import TEMPLATES, ToErase, heads, named

Read = Callable[[Sequence[str]], TextFeatures]


@dataclass(frozen=True, eq=False)
class Pairs:
    """features, targets: float64 `(m, text_dim)`, row by row, on the CPU. Of each word they are a mean over
    the templates, so that a word weighs as much as one general prompt, whatever the number of either.
    """

    features: Tensor
    targets: Tensor

    def moment(self) -> Tensor:
        """sum c c^T `(d, d)` of the features."""
        return self.features.T @ self.features

    def way(self, first: Tensor, second: Tensor, gram: Tensor) -> float:
        """How far keys and values of the features have gone to those of their targets, as a share of the way:
        0 is not at all, 1 all of it, by root mean squares.

        first @ second `(d, d)`: the map M of features, by which keys and values answer W (1 + M) c.
        gram: W^T W `(d, d)` over all projections.
        """
        whole = self.targets - self.features
        rest = whole - self.features @ second.T @ first.T
        left, all_of_it = (float(((rows @ gram) * rows).sum()) for rows in (rest, whole))
        return 1 - (max(0.0, left) / all_of_it) ** 0.5 if all_of_it > 0 else 1.0


def paired(what: ToErase, read: Read) -> Pairs:
    """Read every prompt that names a word, and the same with what is there instead.

    A causal text encoder tells of a word from its last token on: what stands before says the same in both.
    Words may take different numbers of tokens, so the two prompts are laid on each other at the last token of
    the word and of its counterpart, or of what stands before it where the counterpart is nothing. From there
    to the end, padding too, row meets row; where one prompt ends sooner, the rest of the other is left out.
    """
    features, targets = [], []
    for word, other in zip(what.words, what.instead, strict=True):
        of_word, last = _read(word, read)
        of_other, last_of_other = _read(other, read)
        for one, two, i, j in zip(of_word, of_other, last, last_of_other, strict=True):
            count = len(one) - max(i, j)
            features.append(one[i : i + count])
            targets.append(two[j : j + count])
    scale = len(TEMPLATES) ** -0.5
    return Pairs(torch.cat(features) * scale, torch.cat(targets) * scale)


def _read(word: str, read: Read) -> tuple[Tensor, list[int]]:
    """Features `(templates, tokens, text_dim)` of the prompts that name a word, and where its last token is;
    the start token is at 0.
    """
    words_before = read(heads(word)).is_word.sum(dim=1).tolist()
    return read(named(word)).cross.to("cpu", torch.float64), words_before
