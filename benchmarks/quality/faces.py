"""Faces for a space of concepts: Fluent emoji (CREDITS.md of `small_base/`), each in one of three colours.

A face is yellow, pink or teal by the order of its colour channels, which has nothing to do with what it
looks like, so that both can be told from each other. All are shown on the same backgrounds: what differs
between two concepts is the face alone.
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cns_core.concept import Concept, TrainingImage
from small_base.world.catalog import clean
from small_base.world.palette import COLOURS
from small_base.world.sources import EMOJIBASE, FLUENT, code, emoji_records, members, obtain, sprite

CLASS_WORD = "ball"  # round things that the base knows; it has never seen a face
BACKGROUNDS = ("purple", "green", "grey", "white")
SHARE = 0.75  # of the side, as the base knows things
# The order of red, green and blue.
ORDERS = {"yellow": (0, 1, 2), "pink": (0, 2, 1), "teal": (2, 1, 0)}
# Unicode's subgroups of faces, by mood; the others are neither.
GLAD = ("face-smiling", "face-affection", "face-tongue", "face-glasses")
SAD = ("face-concerned", "face-unwell", "face-negative")
_NEITHER = ("face-hand", "face-neutral-skeptical", "face-sleepy", "face-hat")
_NO_FACE = {"skull", "skull and crossbones", "face in clouds", "exploding head"}


@dataclass(frozen=True)
class Face:
    """One face, and what is known of it. mood: glad, sad or neither."""

    number: int
    name: str
    mood: str
    colour: str
    picture: Image.Image  # RGBA

    @property
    def token(self) -> str:
        return f"<face-{self.number}>"

    def concept(self, side: int) -> Concept:
        """Its pictures, `side` pixels wide."""
        images = tuple(self._shown(name, side) for name in BACKGROUNDS)
        return Concept(f"face {self.number}", self.token, CLASS_WORD, "subject", images)

    def _shown(self, background: str, side: int) -> TrainingImage:
        whole = Image.new("RGB", (side, side), COLOURS[background])
        wide = round(side * SHARE)
        small = self.picture.convert("RGBa").resize((wide, wide), Image.Resampling.HAMMING).convert("RGBA")
        whole.paste(small, ((side - wide) // 2,) * 2, small)
        pixels = torch.from_numpy(np.array(whole)).float() / 255
        place = f" on a {background} background"
        captions = tuple(f"{words}{self.token}{place}" for words in ("a photo of ", "", "a picture of "))
        return TrainingImage(pixels, captions, None, f"{self.name}, {background}")


def faces(count: int, cache: Path, seed: int = 0) -> list[Face]:
    """So many different faces, every third of each colour. ValueError where there are fewer.

    cache: a folder that keeps the packages, which npm fetches.
    """
    records, subgroups = emoji_records(cache)
    drawings = members(obtain(FLUENT, cache), "assets", ".webp")
    by_code = {code(name): data for name, data in drawings.items()}
    known = []
    for record in records:
        group, name = subgroups.get(record.get("subgroup", -1), ""), clean(record["label"])
        drawn = by_code.get(code(record["hexcode"]))
        if group in (*GLAD, *SAD, *_NEITHER) and name not in _NO_FACE and drawn is not None:
            mood = "glad" if group in GLAD else "sad" if group in SAD else "neither"
            known.append((name, mood, drawn))
    if count > len(known):
        raise ValueError(
            f"{count} faces are asked for, and {EMOJIBASE.name} knows {len(known)}; ask for fewer."
        )
    chosen = random.Random(seed).sample(known, len(known))[:count]
    colours = list(ORDERS)
    return [
        Face(number, name, mood, colours[number % 3], _coloured(drawn, colours[number % 3]))
        for number, (name, mood, drawn) in enumerate(chosen, 1)
    ]


def _coloured(drawn: bytes, colour: str) -> Image.Image:
    pixels = sprite(Image.open(io.BytesIO(drawn)))
    pixels[..., :3] = pixels[..., ORDERS[colour]]
    return Image.fromarray(pixels)
