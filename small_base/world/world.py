"""What the world consists of: objects in house styles, and places. Pictures of it are made in `compose`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

SPRITE_SIZE = 96
SCENE_SIZE = 128
SMALL_SCENES = ("meadow", "beach", "night", "snow")
SMALL_STYLES = ("twemoji", "fluent")


@dataclass(frozen=True)
class WorldObject:
    """One thing with a name, whichever house style it is drawn in."""

    name: str  # as captions say it, lower case
    category: str  # a noun for what it is one of: "animal", "fruit"
    keywords: tuple[str, ...]  # from Unicode CLDR
    small: bool  # belongs to the world of size s
    held_out: bool  # never shown to the base; the judge knows it


@dataclass(frozen=True)
class World:
    """Every sprite and every place, on the CPU."""

    objects: tuple[WorldObject, ...]
    styles: tuple[str, ...]
    sprites: (
        np.ndarray
    )  # uint8 (N, 96, 96, 4): RGBA, alpha not multiplied in, centred, the longer side nearly full
    sprite_object: np.ndarray  # int32 (N,), into objects
    sprite_style: np.ndarray  # int32 (N,), into styles
    scenes: dict[str, np.ndarray]  # name -> uint8 (V, 128, 128, 3), variants of one place
    held_out_styles: frozenset[str]
    held_out_scenes: frozenset[str]
    tokenizer_files: dict[str, str] = field(default_factory=dict)  # CLIP's vocab.json and merges.txt

    def subset(self, *, small: bool, held_out: bool) -> World:
        """The part for one use.

        Args:
            small: keep only what belongs to size s: its objects, `SMALL_STYLES` and `SMALL_SCENES`.
            held_out: keep held-out objects, styles and scenes (whether small or not); else drop them all.
        """
        kept = [
            index
            for index, thing in enumerate(self.objects)
            if (held_out if thing.held_out else thing.small or not small)
        ]
        styles = [
            index
            for index, style in enumerate(self.styles)
            if (held_out if style in self.held_out_styles else style in SMALL_STYLES or not small)
        ]
        new_object = np.full(len(self.objects), -1, np.int32)
        new_object[kept] = np.arange(len(kept))
        new_style = np.full(len(self.styles), -1, np.int32)
        new_style[styles] = np.arange(len(styles))
        sprites = np.flatnonzero((new_object[self.sprite_object] >= 0) & (new_style[self.sprite_style] >= 0))
        scenes = {
            name: variants
            for name, variants in self.scenes.items()
            if (held_out if name in self.held_out_scenes else name in SMALL_SCENES or not small)
        }
        return replace(
            self,
            objects=tuple(self.objects[index] for index in kept),
            styles=tuple(self.styles[index] for index in styles),
            sprites=self.sprites[sprites],
            sprite_object=new_object[self.sprite_object[sprites]],
            sprite_style=new_style[self.sprite_style[sprites]],
            scenes=scenes,
        )
