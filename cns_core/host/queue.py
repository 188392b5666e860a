"""What the host's queue says of files and concepts that are still to come."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..concept import check_token, make_token
from ..memory import ConceptMemory, LearnedConcept
from ..memory_file import load_memory, told_lost
from ..prompt_tokens import check_tokens
from . import paths

# A graph in API format: node id -> {"class_type", "inputs"}; an input that is wired is [node id, output].
Graph = Mapping[str, Mapping[str, Any]]


def will_be_saved(file: str) -> bool:
    """Whether a graph that is running or waiting saves a memory under this name."""
    # Not imported: where nothing has done so, the host is no server, and nothing waits.
    server, path = sys.modules.get("server"), _path(file)
    instance = getattr(getattr(server, "PromptServer", None), "instance", None)
    if instance is None or path is None:
        return False
    running, waiting = instance.prompt_queue.get_current_queue_volatile()
    return any(path in _saved_by(item[2]) for item in (*running, *waiting))


def _saved_by(graph: Graph) -> list[Path | None]:
    savers = [node for node in graph.values() if node["class_type"] == "SaveConceptMemory"]
    return [_path(node["inputs"].get("filename")) for node in savers]


def _path(name: Any) -> Path | None:
    """None for what is wired to another node, and for a name that the saving node itself refuses."""
    try:
        return paths.new_memory_file(name) if isinstance(name, str) else None
    except ValueError:
        return None


# Of the host's nodes those that write weights as they are patched, and no tokens.
_WRITE_WEIGHTS = ("CheckpointSave", "ModelSave", "CLIPSave")


def weights_written_after(graph: Graph, node_id: str) -> list[str]:
    """Which nodes of that kind get what a node gives, through any others."""
    kinds = {graph[other]["class_type"] for other in _after(graph, node_id)}
    return sorted(kinds & set(_WRITE_WEIGHTS))


def _after(graph: Graph, node_id: str) -> set[str]:
    """The nodes that get what a node gives, through any others."""
    found: set[str] = set()
    fresh = {node_id}
    while fresh:
        fresh = {
            other
            for other, node in graph.items()
            if other not in found and any(_linked(i) in fresh for i in node["inputs"].values())
        }
        found |= fresh
    return found


@dataclass(frozen=True)
class ToCome:
    """A concept that a memory will hold: learned already, or to be learned by these settings, as far as they
    are known.
    """

    name: str
    token: str
    learned: LearnedConcept | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def concepts_to_come(graph: Graph, link: Any) -> list[ToCome] | None:
    """What the memory at a link will hold once the graph has run; None where that cannot be told."""
    node = _node(graph, link)
    inputs = {} if node is None else node["inputs"]
    if node is not None and node["class_type"] == "LoadConceptMemory" and isinstance(inputs.get("file"), str):
        concepts = load_memory(paths.memory_file(inputs["file"])).concepts
        return [ToCome(c.name, c.token, c) for c in concepts]
    if node is not None and node["class_type"] == "RefineConcept":
        earlier = concepts_to_come(graph, inputs.get("memory"))
        new = _concept(graph, inputs.get("concept"), inputs)
        if earlier is None or new is None:
            return None
        return [*(c for c in earlier if c.token != new.token), new]
    if node is not None and node["class_type"] == "ContinualTrain":
        earlier = concepts_to_come(graph, inputs["memory"]) if "memory" in inputs else []
        select = _node(graph, inputs.get("neurons"))
        new = _concept(
            graph, inputs.get("concept"), {**({} if select is None else select["inputs"]), **inputs}
        )
        return None if earlier is None or new is None else [*earlier, new]
    return None


def check_saving(graph: Graph, filename: str, overwrite: bool, link: Any) -> None:
    """ValueError when what can be known of it beforehand tells that saving the memory at a link will fail."""
    path = paths.new_memory_file(filename)
    paths.check_writable(path)
    to_come = concepts_to_come(graph, link)
    if path.exists() and not overwrite and to_come is not None:
        check_keeps(load_memory(path), to_come, path.name)


def check_what_follows(node: Any) -> None:
    """ValueError when what can be known of it beforehand tells that a node that gets what this one gives will
    fail: hosts differ in which of them comes first. Nothing is known where other code calls the node.
    """
    check_after(*running(node))


def running(node: Any) -> tuple[Graph, str]:
    """The graph that a node's class runs in and its id there, if the node has both as hidden inputs; an empty
    graph where other code calls it.
    """
    hidden = node.hidden
    return getattr(hidden, "prompt", None) or {}, str(getattr(hidden, "unique_id", ""))


def check_after(graph: Graph, node_id: str) -> None:
    """`check_what_follows`, of a graph and a node in it."""
    for other in sorted(_after(graph, node_id)):
        kind, inputs = graph[other]["class_type"], graph[other]["inputs"]
        link, name = inputs.get("memory"), inputs.get("filename")
        if kind == "SaveConceptMemory" and isinstance(name, str):
            check_saving(graph, name, inputs.get("overwrite") is True, link)
        if kind == "CLIPScore":
            _check_scored(graph, inputs)


def _check_scored(graph: Graph, inputs: Mapping[str, Any]) -> None:
    """ValueError where the prompt to be scored names a token that no concept explains that is connected."""
    prompt = _text(graph, inputs.get("prompt"))
    concepts = [
        _concept(graph, link, {}) for name, link in inputs.items() if name.startswith("concept") and link
    ]
    of_memory = concepts_to_come(graph, inputs["memory"]) if inputs.get("memory") else []
    if prompt is not None and of_memory is not None and None not in concepts:
        tokens = [c.token for c in (*concepts, *of_memory) if c is not None]
        check_tokens("The prompt that is to be scored", prompt, dict.fromkeys(tokens))


def _text(graph: Graph, value: Any) -> str | None:
    """What is written in a node's input, or in the host's text node that it is wired to."""
    node = _node(graph, value)
    if node is not None and node["class_type"] in ("PrimitiveString", "PrimitiveStringMultiline"):
        value = node["inputs"].get("value")
    return value if isinstance(value, str) else None


def check_keeps(old: ConceptMemory, to_come: Sequence[ToCome], filename: str) -> None:
    """ValueError when it is known already that a memory, saved over an old one, will lose a concept of it."""
    for concept in old.concepts:
        new = next((n for n in to_come if (n.name, n.token) == (concept.name, concept.token)), None)
        if new is None or (new.learned is not None and new.learned.digest() != concept.digest()):
            raise ValueError(told_lost(filename, old, [] if new is None else [concept.name]))
        if new.learned is None and (others := _otherwise(concept, new.settings)):
            raise ValueError(told_lost(filename, old, [concept.name], f" ({', '.join(others[:3])})"))


def _otherwise(concept: LearnedConcept, settings: Mapping[str, Any]) -> list[str]:
    """Which settings differ from those that a concept was learned by."""
    kept = {name: value for group in concept.settings.values() for name, value in group.items()}
    return [
        f"{name} {kept[name]} there, {value} here"
        for name, value in settings.items()
        # Of a choice that is made later, such as an automatic one, nothing is known; nor of what is wired.
        if name in kept and isinstance(value, int | float) and value != kept[name]
    ]


def _node(graph: Graph, link: Any) -> Mapping[str, Any] | None:
    linked = _linked(link)
    return None if linked is None else graph.get(linked)


def _linked(value: Any) -> str | None:
    """The node that an input is wired to."""
    return str(value[0]) if isinstance(value, list | tuple) and value else None


def _concept(graph: Graph, link: Any, settings: Mapping[str, Any]) -> ToCome | None:
    node = _node(graph, link)
    if node is None or node["class_type"] != "LoadConceptImages":
        return None
    name, token = node["inputs"].get("name"), node["inputs"].get("token", "")
    if not isinstance(name, str) or not isinstance(token, str):
        return None
    try:
        written = check_token(token) if token.strip() else make_token(name)
    except ValueError:  # that node refuses it by itself
        return None
    return ToCome(name.strip(), written, settings=settings)
