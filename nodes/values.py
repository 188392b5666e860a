"""What arrives at a node, checked where it enters: graphs over the API and other packs wire anything to
anything, and numbers from wires have no range.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from comfy_api.latest import io

from ..cns_core.concept import Concept
from ..cns_core.memory import ConceptMemory
from ..cns_core.method import Plan
from ..cns_core.values import shown

Execute = Callable[..., io.NodeOutput]

_MAX_TEXT = 100_000  # characters
# Of what the host's own classes have, what this pack uses: other packs have classes of their own.
_PARTS = {
    "MODEL": ("model", "model_options", "clone", "add_patches"),
    "CLIP": ("tokenizer", "cond_stage_model", "patcher", "clone"),
    "VAE": ("patcher", "encode", "decode"),
}
_OURS = {"CNS_CONCEPT": Concept, "CNS_NEURONS": Plan, "CNS_MEMORY": ConceptMemory}
_FROM = {
    "MODEL": "a checkpoint loader",
    "CLIP": "a checkpoint loader",
    "VAE": "a checkpoint loader",
    "CNS_CONCEPT": "Load Concept Images",
    "CNS_NEURONS": "Select Concept Neurons",
    "CNS_MEMORY": "Continual Train or Load Concept Memory",
    "IMAGE": "a node that gives an IMAGE",
    "MASK": "a node that gives a MASK",
}


def checked(*lists: str) -> Callable[[Execute], Execute]:
    """For `execute`: every input is checked against the node's schema, and ValueError names the one that is
    not what it should be. None in an optional input is as if nothing were connected.

    lists: of a node with `is_input_list`, to which the host gives every input as a list: those that stay
    lists. Of the others the only value is passed on; ValueError where one of them has several. Stock nodes
    that give lists, such as *Load Image Dataset from Folder*, would otherwise run the node once for each
    picture.
    """

    def decorate(execute: Execute) -> Execute:
        @functools.wraps(execute)
        def with_checked(cls: type[Any], **inputs: Any) -> io.NodeOutput:
            known = cls.FINALIZE_SCHEMA()  # the host runs a locked copy, which GET_SCHEMA would change
            given = _single(inputs, lists) if known.is_input_list else inputs
            return execute(cls, **_checked(cls, known, given, lists))

        return with_checked

    return decorate


def check_input(node: type[io.ComfyNode], name: str, value: Any) -> None:
    """ValueError unless the value is what a node's input should get."""
    socket = next(i for i in node.FINALIZE_SCHEMA().inputs if i.id == name)
    if (fault := _fault(socket, value)) is not None:
        raise ValueError(f"{name} is {shown(value)}: {fault}.")


def _checked(
    node: type[Any], known: io.Schema, given: Mapping[str, Any], lists: Sequence[str]
) -> dict[str, Any]:
    # Files and folders come and go: the node looks for them itself.
    own = inspect.signature(node.validate_inputs).parameters
    names = {socket.id for socket in known.inputs}
    sound = {name: value for name, value in given.items() if name not in names}
    for socket in known.inputs:
        if socket.id not in given or (given[socket.id] is None and socket.optional):
            continue
        value = given[socket.id]
        for one in value if socket.id in lists else [value]:
            fault = _fault(socket, one)
            if fault is None and socket.get_io_type() == "COMBO" and socket.id not in own:
                fault = None if one in socket.options else f"expected one of {', '.join(socket.options)}"
            if fault is not None:
                raise ValueError(f"{known.display_name}: {socket.id} is {_told(one)}; {fault}.")
        sound[socket.id] = value
    return sound


def _fault(socket: Any, value: Any) -> str | None:
    """What is expected instead of a value, or None when it is right."""
    kind = socket.get_io_type()
    if kind in _FROM:
        return None if _is_one(kind, value) else f"expected {_named(kind)}, from {_FROM[kind]}"
    if kind in ("INT", "FLOAT"):
        return _number_fault(socket, value, whole=kind == "INT")
    if kind == "BOOLEAN":
        return None if isinstance(value, bool) else "expected true or false"
    if not isinstance(value, str):
        return "expected text"
    if len(value) > _MAX_TEXT:
        return f"expected at most {_MAX_TEXT:,} characters, not {len(value):,}"
    return None


def _is_one(kind: str, value: Any) -> bool:
    if kind in _PARTS:
        return all(hasattr(value, part) for part in _PARTS[kind])
    if kind in _OURS:
        return isinstance(value, _OURS[kind])
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not value.numel():
        return False
    return value.ndim == 4 and value.shape[3] >= 3 if kind == "IMAGE" else value.ndim in (2, 3, 4)


def _number_fault(socket: Any, value: Any, whole: bool) -> str | None:
    kind, word = (numbers.Integral, "a whole number") if whole else (numbers.Real, "a number")
    low = -math.inf if socket.min is None else socket.min
    high = math.inf if socket.max is None else socket.max
    right = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    return None if right and low <= value <= high else f"expected {word} from {low:g} to {high:g}"


def _named(kind: str) -> str:
    return {"CNS_CONCEPT": "a concept", "CNS_NEURONS": "neurons", "CNS_MEMORY": "a memory"}.get(kind, kind)


def _told(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    simple = value is None or isinstance(value, str | bytes | numbers.Number | bool)
    return shown(value) if simple else f"a {type(value).__name__}"


def _single(inputs: Mapping[str, Any], lists: Sequence[str]) -> dict[str, Any]:
    several = {name: len(v) for name, v in inputs.items() if name not in lists and len(v) != 1}
    if several:
        raise ValueError(
            f"{', '.join(f'{name} came as a list of {count}' for name, count in several.items())}; one value "
            "was expected. Only pictures and masks may come as lists here."
        )
    return {name: list(v) if name in lists else v[0] for name, v in inputs.items()}
