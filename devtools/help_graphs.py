"""For each node's help page a small graph that shows it wired up."""

from __future__ import annotations

from collections.abc import Callable

from . import workflow_notes as notes
from .workflow_graph import Graph, Group, Node, Output
from .workflow_parts import apply_memory, checkpoint, concept_images, encode, select_and_train, tell

_FILE = f"{notes.SECOND_FILE}.safetensors"


def _load_concept_images() -> list[list[Node]]:
    concept = concept_images("my-panda", "bear", "panda")
    neurons = Node("SelectConceptNeurons", _models() | {"concept": concept["concept"]})
    return [[concept], [neurons]]


def _caption_concept_images() -> list[list[Node]]:
    captions = Node("CaptionConceptImages", {"folder": "panda", "class_word": "bear"})
    return [[captions], [tell(captions["text"], "Captions")]]


def _select() -> list[list[Node]]:
    concept = concept_images("my-panda", "bear", "panda")
    neurons, train = select_and_train(checkpoint(), concept, "", _loaded()["memory"])
    return [[concept], [neurons], [train]]


def _choose() -> list[list[Node]]:
    concept = concept_images("my-panda", "bear", "panda")
    chosen = Node("ChooseMethod", _models() | {"concept": concept["concept"], "method": "lora"})
    inputs = _models() | {"vae": checkpoint()["VAE"], "concept": concept["concept"]}
    train = Node("ContinualTrain", inputs | {"neurons": chosen["neurons"]})
    return [[concept], [chosen], [train]]


def _train() -> list[list[Node]]:
    neurons, train = select_and_train(checkpoint(), concept_images("my-panda", "bear", "panda"), "")
    return [[neurons], [train], [Node("SaveConceptMemory", {"memory": train["memory"]})]]


def _save() -> list[list[Node]]:
    _, train = select_and_train(checkpoint(), concept_images("my-panda", "bear", "panda"), "")
    return [[train], [Node("SaveConceptMemory", {"memory": train["memory"]})]]


def _load() -> list[list[Node]]:
    base, loaded = checkpoint(), _loaded()
    return [[base, loaded], [apply_memory(base, loaded["memory"])]]


def _apply() -> list[list[Node]]:
    base, loaded = checkpoint(), _loaded()
    applied = apply_memory(base, loaded["memory"])
    return [[base, loaded], [applied], [encode(applied["CLIP"], "a photo of <my-panda>", "Prompt")]]


def _score() -> list[list[Node]]:
    concept = concept_images("my-panda", "bear", "panda")
    picture = Node("LoadImage", {"image": "example.png"}, height=200)
    score = Node("CLIPScore", {"image": picture["IMAGE"], "concept": concept["concept"]})
    return [[concept], [picture], [score, tell(score["text"], "Scores")]]


def _forget() -> list[list[Node]]:
    base, loaded = checkpoint(), _loaded()
    rest = Node("ForgetConcept", _of(base) | {"memory": loaded["memory"], "concept": "<my-panda>"})
    saved = Node("SaveConceptMemory", {"memory": rest["memory"], "filename": "without_panda"})
    return [[base, loaded], [rest], [saved, tell(rest["text"], "What it does to others")]]


def _erase() -> list[list[Node]]:
    base, loaded = checkpoint(), _loaded()
    words = {"words": "leopard", "instead": "dog", "keep": "cheetah"}
    erased = Node("EraseConcept", _of(base) | words | {"memory": loaded["memory"]})
    applied = apply_memory(base, erased["memory"])
    return [[base, loaded], [erased], [applied, tell(erased["text"], "What it does to others")]]


def _refine() -> list[list[Node]]:
    base, loaded = checkpoint(), _loaded()
    concept = concept_images("my-panda", "bear", "panda")
    inputs = _of(base) | {"vae": base["VAE"], "memory": loaded["memory"], "concept": concept["concept"]}
    refined = Node("RefineConcept", inputs)
    saved = Node("SaveConceptMemory", {"memory": refined["memory"], "overwrite": True})
    return [[base, loaded, concept], [refined], [saved]]


def _merge() -> list[list[Node]]:
    base, first, second = checkpoint(), _loaded(), Node("LoadConceptMemory", {"file": "parrot.safetensors"})
    both = Node("MergeMemories", _of(base) | {"first": first["memory"], "second": second["memory"]})
    return [[base, first, second], [both], [tell(both["text"], "How far they are in each other's way")]]


def _join() -> list[list[Node]]:
    base, first, second = checkpoint(), _loaded(), Node("LoadConceptMemory", {"file": "parrot.safetensors"})
    inputs = _of(base) | {"memory_1": first["memory"], "memory_2": second["memory"]}
    joined = Node("MergeConcepts", inputs | {"rule": "gradient fusion"})
    return [[base, first, second], [joined], [tell(joined["text"], "How well both are kept")]]


def _sample() -> list[list[Node]]:
    base = checkpoint()
    made = Node("SampleConcept", {"files": "faces/*", "name": "new face"})
    applied = apply_memory(base, made["memory"])
    return [[base, made], [applied], [encode(applied["CLIP"], "a photo of <new-face>", "Prompt")]]


def _edit() -> list[list[Node]]:
    base = checkpoint()
    made = Node("SampleConcept", {"files": "faces/*", "name": "new face"})
    lists = {"more_like": "<face-3>, <face-8>", "less_like": "<face-1>, <face-5>"}
    given = {"files": "faces/*", "concept": "<new-face>", "other": made["memory"]}
    moved = Node("EditConcept", given | lists)
    return [[made], [moved, base], [apply_memory(base, moved["memory"])]]


def _export() -> list[list[Node]]:
    loaded = _loaded()
    exported = Node("ExportConceptMemory", {"memory": loaded["memory"], "filename": notes.SECOND_FILE})
    return [[loaded], [exported], [tell(exported["text"], "What was written")]]


def _import() -> list[list[Node]]:
    base = checkpoint()
    made = Node("ImportConcept", _of(base) | {"embedding": "my-cat.safetensors"})
    return [[base], [made], [Node("SaveConceptMemory", {"memory": made["memory"]})]]


def _matrix() -> list[list[Node]]:
    base, loaded = checkpoint(), _loaded()
    concept = concept_images("my-panda", "bear", "panda")
    inputs = _of(base) | {"vae": base["VAE"], "memory": loaded["memory"], "concept": concept["concept"]}
    matrix = Node("ConceptMatrix", inputs)
    return [[base, loaded, concept], [matrix], [tell(matrix["text"], "Figures")]]


def _locate() -> list[list[Node]]:
    base, loaded = checkpoint(), _loaded()
    concept = concept_images("my-panda", "bear", "panda")
    inputs = _of(base) | {"vae": base["VAE"], "memory": loaded["memory"], "concept": concept["concept"]}
    located = Node("LocateConcept", inputs)
    return [[base, loaded, concept], [located], [tell(located["text"], "Where it lives")]]


def _loaded() -> Node:
    return Node("LoadConceptMemory", {"file": _FILE})


def _of(base: Node) -> dict[str, Output]:
    return {"model": base["MODEL"], "clip": base["CLIP"]}


def _models() -> dict[str, Output]:
    return _of(checkpoint())


COLUMNS: dict[str, Callable[[], list[list[Node]]]] = {
    "LoadConceptImages": _load_concept_images,
    "CaptionConceptImages": _caption_concept_images,
    "SelectConceptNeurons": _select,
    "ChooseMethod": _choose,
    "ContinualTrain": _train,
    "SaveConceptMemory": _save,
    "LoadConceptMemory": _load,
    "ApplyPersonalizedUNet": _apply,
    "CLIPScore": _score,
    "ForgetConcept": _forget,
    "EraseConcept": _erase,
    "RefineConcept": _refine,
    "MergeMemories": _merge,
    "MergeConcepts": _join,
    "SampleConcept": _sample,
    "EditConcept": _edit,
    "ExportConceptMemory": _export,
    "ImportConcept": _import,
    "ConceptMatrix": _matrix,
    "LocateConcept": _locate,
}


def help_graph(node_id: str) -> Graph:
    """The graph for a node's page. Nodes that only give something to those shown stand at its left."""
    columns = COLUMNS[node_id]()
    shown = [node for column in columns for node in column]
    hidden = _givers(shown)
    return Graph(node_id, [[Group("", [hidden])] if hidden else [], [Group("", columns)]])


def _givers(shown: list[Node]) -> list[Node]:
    found: list[Node] = []
    waiting = list(shown)
    while waiting:
        for value in waiting.pop().inputs.values():
            if isinstance(value, Output) and value.node not in shown and value.node not in found:
                found.append(value.node)
                waiting.append(value.node)
    return found
