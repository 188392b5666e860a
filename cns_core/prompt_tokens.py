"""Learned tokens in prompts: where one is left open, and which mean nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

PLACE = "{}"  # stands for a concept's token in a prompt

_LEARNED_TOKEN = re.compile(
    r"<[A-Za-z0-9][A-Za-z0-9_-]*>"
)  # as `concept.check_token` takes it, in either case


def tokens_in(prompt: str) -> list[str]:
    """What is written as a learned token is, each once, in lower case as tokenizers see it."""
    return list(dict.fromkeys(token.lower() for token in _LEARNED_TOKEN.findall(prompt)))


def unknown_tokens(prompt: str, known: Iterable[str]) -> list[str]:
    """Those of a prompt's that are none of the known ones."""
    taken = set(known)
    return [token for token in tokens_in(prompt) if token not in taken]


def check_tokens(what: str, prompt: str, known: Iterable[str]) -> None:
    """ValueError where a prompt names a token that is none of the known ones.

    what: names the prompt, for people, such as "The preview prompt".
    """
    tokens = list(known)
    if unknown := unknown_tokens(prompt, tokens):
        raise ValueError(
            f"{what} {prompt!r} names {', '.join(unknown)}, which nothing has learned. Tokens that are known "
            f"then: {', '.join(tokens) or 'none'}. Write one of them, or plain words."
        )


def replaced(prompt: str, words: Mapping[str, str]) -> str:
    """A prompt with a word in the place of each token, which all have one."""
    return _LEARNED_TOKEN.sub(lambda match: words[match.group().lower()], prompt)
