"""What is to be erased, in words: the prompts that name it, and what the same prompts say instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..concept import MAX_CAPTIONS, MAX_NAME_LENGTH, same_name
from ..values import odd_character, shown

PLACE = "{}"
# Alone, in photos and art, and with words that follow: an erasure is felt where prompts are like these.
TEMPLATES = (
    "{}",
    "a {}",
    "a photo of {}",
    "a photo of a {}",
    "a picture of {}",
    "a painting of a {}",
    "a drawing of {}",
    "a {} on a beach",
    "the {} at night",
    "a painting in the style of {}",
)
MAX_WORDS = MAX_CAPTIONS  # at once: a memory keeps a caption of each, so that later concepts spare it
_MAX_LENGTH = 64  # characters of one


@dataclass(frozen=True)
class ToErase:
    """Words, and what each is led to: a word, or nothing. ValueError for words that cannot be."""

    words: tuple[str, ...]
    instead: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.words:
            raise ValueError(
                "There are no words to erase, expected at least one, such as 'leopard'. Write one a line."
            )
        if len(self.words) > MAX_WORDS:
            raise ValueError(
                f"{len(self.words)} words are to be erased, expected at most {MAX_WORDS} at once. Erase the "
                "others on top of the memory that this gives."
            )
        if len(self.instead) != len(self.words):
            raise ValueError(
                f"{len(self.words)} words are to be erased, but {len(self.instead)} are there to fall back "
                "on. Write one for all, one a line for each, or none."
            )
        for word in (*self.words, *self.instead):
            if odd_character(word) or "<" in word or ">" in word or len(word) > _MAX_LENGTH:
                raise ValueError(
                    f"{shown(word)} cannot be erased or fallen back on: expected ordinary words without < or "
                    f">, of at most {_MAX_LENGTH} characters. Forget Concept takes learned tokens out."
                )
        for word, other in zip(self.words, self.instead, strict=True):
            if same_name(word) == same_name(other):
                raise ValueError(f"{word!r} is to be led to itself. Write another word to fall back on.")
        if len({same_name(word) for word in self.words}) != len(self.words):
            raise ValueError("A word to erase is given twice; give each once.")

    @classmethod
    def of(cls, words: str, instead: str) -> ToErase:
        """From texts of one word or phrase a line; one line of `instead` is for all, none is for nothing."""
        erased, others = lines_of(words), lines_of(instead)
        if len(others) <= 1:
            others = (others or ("",)) * len(erased)
        return cls(erased, others)

    @property
    def name(self) -> str:
        """What the erasure is called: "without leopard and cheetah"."""
        whole = f"without {' and '.join(self.words)}"
        if len(whole) <= MAX_NAME_LENGTH:
            return whole
        return f"without {self.words[0]}"[: MAX_NAME_LENGTH - 12] + f" and {len(self.words) - 1} more"

    def captions(self) -> tuple[str, ...]:
        """Some that name the words, as many as a memory keeps."""
        each = MAX_CAPTIONS // len(self.words)
        return tuple(caption for word in self.words for caption in named(word)[:each])

    def spare(self, prompts: Sequence[str]) -> tuple[str, ...]:
        """Those that name none of the words: the others would be protected from being erased."""
        words = [f" {same_name(word)} " for word in self.words]
        return tuple(p for p in prompts if not any(word in f" {_plain(p)} " for word in words))


def named(word: str) -> tuple[str, ...]:
    """Every template, filled with a word; with nothing, what is left of it."""
    return tuple(" ".join(template.replace(PLACE, word).split()) for template in TEMPLATES)


def heads(word: str) -> tuple[str, ...]:
    """`named`, each up to the word and no further."""
    return tuple(" ".join(template.partition(PLACE)[0].split() + word.split()) for template in TEMPLATES)


def lines_of(text: str) -> tuple[str, ...]:
    """What stands on the lines of a text that are not empty, each once spaced."""
    return tuple(" ".join(line.split()) for line in text.splitlines() if line.strip())


def _plain(prompt: str) -> str:
    return "".join(c if c.isalnum() or c in "-'" else " " for c in same_name(prompt))
