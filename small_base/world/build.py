"""Makes the world file from the packages. Needs npm, pillow and resvg_py, which nothing else here does."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .catalog import choose, read_small
from .concepts import read_concepts
from .scenery import draw_scenes
from .sources import emoji_records, house_styles, sprite
from .world import World
from .world_file import read_world, write_world

TOKENIZER_FILES = ("vocab.json", "merges.txt")


def build_world(out: Path, cache: Path, tokenizer_folder: Path, seed: int) -> World:
    """Make the world, write it to `out` and say what is in it.

    Args:
        out: the world file to write.
        cache: a folder that keeps the packages for the next time.
        tokenizer_folder: one with CLIP's `vocab.json` and `merges.txt`.
        seed: what the scenes are drawn with.

    Returns:
        The world as read back from the file: its pictures have at most 256 colours each.
    """
    absent = [name for name in TOKENIZER_FILES if not (tokenizer_folder / name).is_file()]
    if absent:
        raise FileNotFoundError(
            f"{tokenizer_folder} has no {' and no '.join(absent)}: name the folder of CLIP's tokenizer, "
            "such as ComfyUI's comfy/sd1_tokenizer."
        )
    tokenizer = {name: (tokenizer_folder / name).read_text(encoding="utf-8") for name in TOKENIZER_FILES}
    concepts = read_concepts()
    records, subgroups = emoji_records(cache)
    styles = house_styles(cache)
    held_out_styles = concepts.held_out_styles()
    trained = [drawings for name, drawings in styles.items() if name not in held_out_styles]
    entries = choose(records, subgroups, trained, concepts, read_small())
    sprites, of_object, of_style = [], [], []
    for number, entry in enumerate(entries):
        for style, drawings in enumerate(styles.values()):
            if entry.code in drawings:
                sprites.append(sprite(drawings[entry.code]()))
                of_object.append(number)
                of_style.append(style)
    world = World(
        objects=tuple(entry.thing for entry in entries),
        styles=tuple(styles),
        sprites=np.stack(sprites),
        sprite_object=np.array(of_object, np.int32),
        sprite_style=np.array(of_style, np.int32),
        scenes=draw_scenes(seed, concepts.held_out_scenes()),
        held_out_styles=held_out_styles,
        held_out_scenes=concepts.held_out_scenes(),
        tokenizer_files=tokenizer,
    )
    write_world(world, out)
    world = read_world(out)
    print(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, {len(world.objects)} objects "
        f"({sum(thing.small for thing in world.objects)} small, "
        f"{sum(thing.held_out for thing in world.objects)} held out), "
        f"{len(world.sprites)} sprites in {len(world.styles)} styles, "
        f"{len(world.scenes)} scenes in {sum(map(len, world.scenes.values()))} variants"
    )
    return world
