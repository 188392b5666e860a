"""What a model says about a picture, made into a caption to train on: `a brown dog on grass` becomes
`a brown {} on grass`, where `{}` stands for the concept's token.
"""

from __future__ import annotations

import re

from .captions import check_bounded, in_place_of_class_word
from .concept import check_class_word
from .values import line_of_text, odd_character, shown

SLOT = "{}"
MAX_PREFIX = 200  # characters
_MARKS = str.maketrans("", "", "{}<>`")  # they mean something in a caption file, or in what shows it
_NO_WORD = re.compile(r"\baraff?e\w*\s*", re.IGNORECASE)  # BLIP writes 'arafed' for what it has no word for
_ENDS = (".", "!", "?", ";", ",", ":")
_LEADS_ON = re.compile(
    r"a|an|the|this|that|its|his|her|their|of|in|on|at|by|to|for|from|with|without|and|or|but|near|over|under"
    r"|behind|beside|between|into|onto|is|are|was|were|has|have|very",
    re.IGNORECASE,
)


def caption_of(sentence: str, class_word: str, prefix: str = "", most_words: int = 40) -> str:
    """One caption on one line, with `{}` in it.

    The first whole-word occurrence of the class word becomes `{}`; where there is none, and none in the
    prefix, `{}, ` goes in front.

    prefix: is put in front of all; most_words: of the sentence; what is longer ends at a comma or full stop
        where there is one in the second half, else before words that lead on, such as 'on a'.

    Raises:
        ValueError: no letter or digit in the sentence, a caption that is too long to be kept, or a class word
            or prefix that cannot be used.
    """
    check_class_word(class_word)
    check_prefix(prefix)
    if most_words < 1:
        raise ValueError(f"At most {most_words} words were asked for, expected at least 1. Ask for 20.")
    said = _shortened(_plain(sentence).split(), most_words)
    if not any(character.isalnum() for character in said):
        raise ValueError(f"the model said {shown(sentence)}, expected words. Try another model.")
    named = in_place_of_class_word(said, SLOT, class_word)
    if named is None:
        named = said if SLOT in prefix else f"{SLOT}, {said}"
    caption = f"{prefix.strip()} {named}".strip()
    check_bounded(caption)
    return caption


def check_prefix(prefix: str) -> None:
    """ValueError unless captions may begin with it."""
    line_of_text(prefix, "The prefix", MAX_PREFIX, may_be_empty=True)


def _plain(sentence: str) -> str:
    """On one line, without what means something in captions or cannot be printed."""
    line = " ".join(sentence.split()).translate(_MARKS)
    printable = "".join(c for c in line if odd_character(c) is None)
    return _NO_WORD.sub("", printable).strip(" \"'")


def _shortened(words: list[str], most: int) -> str:
    """The first words, without a full stop at the end."""
    if len(words) > most:
        words = words[:most]
        ends = [number for number, word in enumerate(words, 1) if word.endswith(_ENDS)]
        if ends and 2 * ends[-1] >= most:
            words = words[: ends[-1]]
        while len(words) > 1 and _LEADS_ON.fullmatch(words[-1]):
            words = words[:-1]
    return " ".join(words).rstrip(" .,;:")
