"""Ordered sets of concepts to be learnt one after another, with the prompts that they are judged by."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from .concepts import Concept, Concepts, read_concepts

SETS_FOLDER = Path(__file__).with_name("sets")
CONCEPTS_IN = {"single": 1, "double": 2, "triple": 3}  # a prompt of each group has so many concepts

_TOKEN = re.compile(r"<[^<>]*>")


class SetError(ValueError):
    """The file is not a set of known concepts with prompts for them."""


@dataclass(frozen=True)
class ConceptSet:
    """Concepts in the order in which they are learnt."""

    name: str
    concepts: tuple[Concept, ...]
    prompts: dict[str, tuple[str, ...]]  # by the groups in CONCEPTS_IN; concepts are tokens: "<my-panda>"

    def concepts_in(self, prompt: str) -> tuple[Concept, ...]:
        """The concepts whose tokens are in the prompt, in the order of the prompt."""
        by_token = {token_of(one): one for one in self.concepts}
        return tuple(by_token[token] for token in dict.fromkeys(_TOKEN.findall(prompt)))


def token_of(concept: Concept) -> str:
    """What prompts call a concept."""
    return f"<{concept.name}>"


def set_paths(folder: Path = SETS_FOLDER) -> list[Path]:
    """The files of all sets, by name."""
    return sorted(folder.glob("*.json"))


def read_set(path: Path, known: Concepts | None = None) -> ConceptSet:
    """The set in a JSON file of `{"concepts": [names in order], "prompts": {"single": [...], ...}}`.

    Raises:
        SetError: a concept is not among `known` (by default those of `concepts.json`) or comes twice, a group
            of prompts is missing or unknown, or a prompt has other or more concepts than it should.
    """
    by_name = {one.name: one for one in (known or read_concepts()).concepts}
    read = json.loads(path.read_text(encoding="utf-8"))
    names = read["concepts"]
    unknown = sorted(set(names) - set(by_name))
    if unknown or len(set(names)) != len(names):
        raise SetError(
            f"{path} names {', '.join(names)}: each name may come once, and {', '.join(unknown) or 'none'} "
            f"is unknown. The known ones are {', '.join(by_name)}."
        )
    if set(read["prompts"]) != set(CONCEPTS_IN):
        raise SetError(
            f"{path} has the prompts {sorted(read['prompts'])}; expected are {', '.join(CONCEPTS_IN)}."
        )
    concepts = tuple(by_name[name] for name in names)
    tokens = {token_of(one) for one in concepts}
    for group, count in CONCEPTS_IN.items():
        for prompt in read["prompts"][group]:
            used = set(_TOKEN.findall(prompt))
            if not used <= tokens or len(used) != count:
                raise SetError(
                    f"{path}, {group}: {prompt!r} has the tokens {sorted(used)}; expected are {count} of "
                    f"{', '.join(sorted(tokens))}."
                )
    return ConceptSet(path.stem, concepts, {group: tuple(read["prompts"][group]) for group in CONCEPTS_IN})
