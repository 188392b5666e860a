"""Folders and Hugging Face ids of `transformers` models, checked before anything is loaded from them: weights
are safetensors alone and lie in the folder itself, so that no file of any origin can run code or be read from
elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .picture_files import stays_inside
from .values import shown

MakeRoom = Callable[[int], None]  # told how many bytes are about to be moved to a device

_HUGGING_FACE_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def no_room(needed: int) -> None:
    """Makes none, where there is no host to ask."""


def bytes_of(model: Any) -> int:
    """Of a model's parameters."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def is_hugging_face_id(name: str) -> bool:
    """Whether a name looks like `owner/name`."""
    return _HUGGING_FACE_ID.fullmatch(name) is not None


def model_config(folder: Path, kind: str, files: str) -> dict[str, Any]:
    """What a folder's `config.json` says.

    kind: of model, in words; files: those that such a folder has.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{str(folder)!r} holds no config.json, so it is no {kind} model folder. Download the model's "
            f"files ({files}) into it."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSON and UTF-8 alike
        raise ValueError(f"{str(path)!r} is damaged ({error}). Download it again.") from error
    if not isinstance(config, dict):
        raise ValueError(f"{str(path)!r} holds {shown(config)}, expected an object. Download it again.")
    return config


def check_weights(folder: Path) -> None:
    """ValueError unless the folder's weights are whole, safetensors, and lie in it."""
    weights = folder / "model.safetensors"
    index = folder / "model.safetensors.index.json"
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{str(folder)!r} holds an adapter to another model, which would be looked for elsewhere. "
            "Download a whole model."
        )
    if not weights.is_file() and not index.is_file():
        raise ValueError(
            f"{str(folder)!r} has no model.safetensors. Weights in other forms (pytorch_model.bin) are "
            "pickles, which can run any code, and are not opened: download the safetensors file."
        )
    listed = {weights.name} if not index.is_file() else _indexed(index)
    for name in sorted(listed):
        if Path(name).name != name or not stays_inside(folder / name):
            raise ValueError(
                f"{str(index if index.is_file() else weights)!r} leads to {shown(name)}, outside the folder. "
                "Put the weights themselves into it."
            )


def _indexed(index: Path) -> set[str]:
    """The files of weights that an index names."""
    try:
        return {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{str(index)!r} is no index of weights ({error}). Download it again.") from error
