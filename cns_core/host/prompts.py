"""Prompts as people write them for the host, read as plain words."""

from __future__ import annotations

import re

from comfy import sd1_clip

# Front ends and packs that encode a prompt in parts separate them by these; the host's own nodes do not.
_SEPARATOR = re.compile(r"\b(?:BREAK|AND)\b")
_EMBEDDING = re.compile(r"(?:^|(?<=\s))embedding:(\S+)")


def plain_words(prompt: str) -> tuple[str, list[str]]:
    """A prompt without weights, escapes, parts weighed 0 or less and separators, by the host's own parser of
    weights; and the embeddings it names, which mean nothing outside the host and are left out.
    """
    parts = sd1_clip.token_weights(sd1_clip.escape_important(prompt), 1.0)
    text = sd1_clip.unescape_important("".join(part for part, weight in parts if weight > 0))
    embeddings = [name.rstrip(",.;") for name in _EMBEDDING.findall(text)]
    text = _SEPARATOR.sub(",", _EMBEDDING.sub("", text))
    text = re.sub(r"(?:\s*,)+", ",", " ".join(text.split()))
    return text.strip(" ,"), embeddings
