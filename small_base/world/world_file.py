"""A world in one file: palette pictures, compressed, behind a JSON header.

Layout: `MAGIC`; the header's length as 8 bytes, little end first; the header; the sections, one after
another, each an xz stream. The header lists every section with its shape, its compressed length and its
digest, so that a damaged file is noticed and a hostile one can make the reader unpack no more than `LIMIT`.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import math
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np

from .world import SCENE_SIZE, SPRITE_SIZE, World, WorldObject

MAGIC = b"emoji world 1\n"
LIMIT = 1 << 30  # bytes of all sections, decompressed
HEADER_LIMIT = 16 << 20
COLOURS = 256


class WorldFileError(ValueError):
    """The file is not a whole world."""


def _palette_of(pixels: np.ndarray) -> np.ndarray:
    """At most 256 colours that stand for `pixels` (N, 3) uint8, darkest first: (256, 3), padded with 0."""
    colours = _different(pixels)[0]
    if len(colours) > COLOURS:
        from PIL import Image  # only here: whoever reads a world has no need of it

        picture = Image.fromarray(pixels.reshape(1, -1, 3))
        chosen = picture.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, kmeans=2).getpalette()
        colours = _different(np.array(chosen, np.uint8).reshape(-1, 3))[0]
    # Neighbours in brightness get neighbouring numbers, which compresses better.
    colours = colours[np.argsort(colours @ np.array([3, 6, 1]), kind="stable")]
    palette = np.zeros((COLOURS, 3), np.uint8)
    palette[: len(colours)] = colours
    return palette


def _different(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different colours among `pixels` (N, 3) uint8, and which of them each pixel is."""
    packed = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    found, where = np.unique(packed, return_inverse=True)
    return np.stack([found >> 16, found >> 8 & 255, found & 255], -1).astype(np.uint8), where


def _nearest(pixels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """The number of the palette's nearest colour, uint8, for each of `pixels` (N, 3)."""
    colours, where = _different(pixels)
    points = palette.astype(np.float32)
    # The squared distance without the colour's own square, which is the same for every point.
    far = (points**2).sum(1) - 2 * colours.astype(np.float32) @ points.T
    return far.argmin(1).astype(np.uint8)[where]


def _to_palettes(pictures: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Palettes (N, 256, 3) and numbers (N, H, W) of `pictures` (N, H, W, 3); number 0 where not `visible`."""
    palettes = np.zeros((len(pictures), COLOURS, 3), np.uint8)
    numbers = np.zeros(pictures.shape[:3], np.uint8)
    for index, (picture, shown) in enumerate(zip(pictures, visible, strict=True)):
        if shown.any():
            palettes[index] = _palette_of(picture[shown])
            numbers[index][shown] = _nearest(picture[shown], palettes[index])
    return palettes, numbers


def _from_palettes(palettes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The pictures (N, H, W, 3) that palettes (N, 256, 3) and numbers (N, H, W) stand for."""
    pictures = np.empty((*numbers.shape, 3), np.uint8)
    for index, (palette, number) in enumerate(zip(palettes, numbers, strict=True)):
        pictures[index] = palette[number]
    return pictures


def write_world(world: World, path: Path) -> None:
    """Write `world` to `path`, replacing what is there only when all is written.

    A picture of more than 256 colours loses the finest differences; invisible pixels lose their colour.
    Writing again what was read changes nothing more.
    """
    alpha = world.sprites[..., 3]
    palettes, numbers = _to_palettes(world.sprites[..., :3], alpha > 0)
    names = list(world.scenes)
    scenes = np.concatenate(
        [np.zeros((0, SCENE_SIZE, SCENE_SIZE, 3), np.uint8), *(world.scenes[name] for name in names)]
    )
    scene_palettes, scene_numbers = _to_palettes(scenes, np.ones(scenes.shape[:3], bool))
    arrays = {
        "sprite palettes": palettes,
        "sprite numbers": numbers,
        "sprite alpha": alpha,
        "sprite object": world.sprite_object.astype("<i4").view(np.uint8),
        "sprite style": world.sprite_style.astype("<i4").view(np.uint8),
        "scene palettes": scene_palettes,
        "scene numbers": scene_numbers,
    }
    for name, text in world.tokenizer_files.items():
        arrays[f"tokenizer {name}"] = np.frombuffer(text.encode(), np.uint8)
    sections, streams = [], []
    for name, array in arrays.items():
        stream = lzma.compress(np.ascontiguousarray(array).tobytes(), preset=6)
        digest = hashlib.sha256(stream).hexdigest()
        sections.append({"name": name, "shape": array.shape, "length": len(stream), "sha256": digest})
        streams.append(stream)
    header = {
        "objects": [asdict(thing) for thing in world.objects],
        "styles": world.styles,
        "scenes": {name: len(world.scenes[name]) for name in names},
        "held_out_styles": sorted(world.held_out_styles),
        "held_out_scenes": sorted(world.held_out_scenes),
        "sections": sections,
    }
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("wb") as file:
        file.write(MAGIC + len(text).to_bytes(8, "little") + text)
        for stream in streams:
            file.write(stream)
    os.replace(unfinished, path)


def _section(entry: dict, data: bytes) -> np.ndarray:
    """One section's array, uint8, decompressed to exactly the size that the header promises."""
    size = math.prod(entry["shape"])
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise WorldFileError(f"its section {entry['name']!r} is damaged")
    unpacked = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=1 << 28).decompress(data, max_length=size + 1)
    if len(unpacked) != size:
        raise WorldFileError(f"its section {entry['name']!r} is not {size} bytes long")
    return np.frombuffer(unpacked, np.uint8).reshape(entry["shape"])


def _parse(data: bytes) -> World:
    if not data.startswith(MAGIC):
        raise WorldFileError(f"it starts with {data[: len(MAGIC)]!r}, not with {MAGIC!r}")
    start = len(MAGIC) + 8
    end = start + int.from_bytes(data[len(MAGIC) : start], "little")
    if start > len(data) or end > min(len(data), HEADER_LIMIT):
        raise WorldFileError("it ends within its header")
    header = json.loads(data[start:end])
    if any(side < 0 for entry in header["sections"] for side in entry["shape"]):
        raise WorldFileError("a section claims a negative size")
    promised = sum(math.prod(entry["shape"]) for entry in header["sections"])
    if promised > LIMIT:
        raise WorldFileError(f"it claims to hold {promised} bytes, more than the {LIMIT} that a world may")
    arrays = {}
    for entry in header["sections"]:
        if not 0 <= entry["length"] <= len(data) - end:
            raise WorldFileError(f"it ends within its section {entry['name']!r}")
        arrays[entry["name"]] = _section(entry, data[end : end + entry["length"]])
        end += entry["length"]
    if end != len(data):
        raise WorldFileError(f"{len(data) - end} bytes follow its last section")

    objects = tuple(
        WorldObject(**{**thing, "keywords": tuple(thing["keywords"])}) for thing in header["objects"]
    )
    styles = tuple(header["styles"])
    counts = header["scenes"]
    if any(count < 0 for count in counts.values()):
        raise WorldFileError(f"it claims {counts} variants of its scenes")
    sprites, scenes = len(arrays["sprite numbers"]), sum(counts.values())
    expected = {
        "sprite palettes": (sprites, COLOURS, 3),
        "sprite numbers": (sprites, SPRITE_SIZE, SPRITE_SIZE),
        "sprite alpha": (sprites, SPRITE_SIZE, SPRITE_SIZE),
        "sprite object": (4 * sprites,),
        "sprite style": (4 * sprites,),
        "scene palettes": (scenes, COLOURS, 3),
        "scene numbers": (scenes, SCENE_SIZE, SCENE_SIZE),
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise WorldFileError(f"its section {name!r} has the shape {arrays[name].shape}, not {shape}")
    of_object = arrays["sprite object"].view("<i4").astype(np.int32)
    of_style = arrays["sprite style"].view("<i4").astype(np.int32)
    for numbers, limit, what in ((of_object, len(objects), "object"), (of_style, len(styles), "style")):
        if sprites and not (numbers.min() >= 0 and numbers.max() < limit):
            raise WorldFileError(f"a sprite belongs to {what} {numbers.max()}, and there are {limit}")
    pixels = np.empty((sprites, SPRITE_SIZE, SPRITE_SIZE, 4), np.uint8)
    pixels[..., 3] = arrays["sprite alpha"]
    pixels[..., :3] = _from_palettes(arrays["sprite palettes"], arrays["sprite numbers"])
    pixels[pixels[..., 3] == 0] = 0
    places = _from_palettes(arrays["scene palettes"], arrays["scene numbers"])
    ends = np.cumsum(list(counts.values()), dtype=int)
    return World(
        objects=objects,
        styles=styles,
        sprites=pixels,
        sprite_object=of_object,
        sprite_style=of_style,
        scenes={
            name: places[at - count : at] for (name, count), at in zip(counts.items(), ends, strict=True)
        },
        held_out_styles=frozenset(header["held_out_styles"]),
        held_out_scenes=frozenset(header["held_out_scenes"]),
        tokenizer_files={
            name.removeprefix("tokenizer "): array.tobytes().decode()
            for name, array in arrays.items()
            if name.startswith("tokenizer ")
        },
    )


def read_world(path: Path) -> World:
    """Read what `write_world` wrote.

    Raises:
        WorldFileError: the file is no world, or a damaged one.
        FileNotFoundError: there is no such file.
    """
    try:
        return _parse(path.read_bytes())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, lzma.LZMAError) as error:
        raise WorldFileError(f"{path} is not a world file: {error}. Build or copy it again.") from error
