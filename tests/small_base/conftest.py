"""A tokenizer and a world as small as they can be. The networks are made of the host's modules."""

from __future__ import annotations

import json
from types import ModuleType

import numpy as np
import pytest

from small_base.world.world import World, WorldObject


@pytest.fixture(scope="session", autouse=True)
def host_is_there(comfy: ModuleType) -> None:
    """In its own folder, before any network asks for it."""


def _byte_symbols() -> list[str]:
    """The characters that CLIP's vocabulary writes the 256 bytes with."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


@pytest.fixture(scope="session")
def tokenizer_files() -> dict[str, str]:
    """CLIP's tokenizer as small as it can be: bytes, and the merges of `a`, `cat` and `red`."""
    symbols = _byte_symbols()
    merges = ["c a", "ca t</w>", "r e", "re d</w>"]
    words = [
        *symbols,
        *(symbol + "</w>" for symbol in symbols),
        *(merge.replace(" ", "") for merge in merges),
    ]
    vocabulary = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    return {"vocab.json": json.dumps(vocabulary), "merges.txt": "\n".join(["#version: 0.2", *merges]) + "\n"}


@pytest.fixture(scope="session")
def tiny_world(tokenizer_files: dict[str, str]) -> World:
    """Four discs in two house styles, one of them held out, on colours and on one place."""
    colours = ((220, 40, 40), (40, 170, 60), (40, 80, 210), (240, 210, 60))
    side = np.arange(96) - 47.5
    inside = (side[:, None] ** 2 + side[None, :] ** 2 < 46**2)[..., None]
    discs = [np.where(inside, np.array([*colour, 255]), 0).astype(np.uint8) for colour in colours]
    dim = [(disc * np.array([0.7, 0.7, 0.7, 1.0])).astype(np.uint8) for disc in discs]
    names = ("cat", "pea", "ball", "sun")
    return World(
        objects=tuple(WorldObject(name, "thing", (), True, name == "sun") for name in names),
        styles=("noto", "fluent"),
        sprites=np.stack(discs + dim),
        sprite_object=np.array([0, 1, 2, 3] * 2, np.int32),
        sprite_style=np.array([0] * 4 + [1] * 4, np.int32),
        scenes={"beach": np.full((2, 128, 128, 3), 120, np.uint8)},
        held_out_styles=frozenset(),
        held_out_scenes=frozenset(),
        tokenizer_files=tokenizer_files,
    )
