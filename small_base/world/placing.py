"""Scenes drawn at random: which things stand where, how large and how tilted, on what."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .palette import COLOURS
from .wording import Background, Colour, Placed, Scene
from .world import World

_JITTER = 8  # of plain colours, each channel, 0..255
_DIRECTIONS = ((0, 1), (1, 1), (-1, 1))
_CHUNK = 64  # sprites looked at at once


@dataclass(frozen=True)
class Variety:
    """How much the things in pictures differ from each other in their poses."""

    alone: tuple[float, float] = (0.5, 0.85)  # size of a thing, in sides of the picture
    in_pairs: tuple[float, float] = (0.35, 0.55)
    tilt: float = 25.0  # degrees at most; little is more frequent than much
    mirrored: float = 0.5  # share
    off_centre: float = 0.2  # of a thing alone, in sides of the picture at most
    cells: int | None = None  # of a side: frames then fill whole ones, as a small U-Net's latents have them


FULL_VARIETY = Variety()
PAIRS = 0.35  # share of scenes with two things


class SceneSampler:
    """Draws scenes: which things, where, on what. The same seed gives the same scenes on every machine."""

    def __init__(
        self,
        world: World,
        size: int,
        seed: int,
        *,
        pairs: float = PAIRS,
        plain: float = 0.45,
        gradient: float = 0.10,
        same_style: float = 0.75,
        variety: Variety = FULL_VARIETY,
    ) -> None:
        """
        Args:
            size: the side of the pictures in pixels; one pixel at the edge is kept free.
            seed: for `sample` without an `rng`.
            pairs: share of scenes with two things.
            plain, gradient: shares of those backgrounds; the rest are places, if the world has any.
            same_style: share of pairs whose second thing takes the first one's style if it is drawn in it.
            variety: of the things' poses.
        """
        self.world = world
        self.pairs, self.plain, self.gradient, self.same_style = pairs, plain, gradient, same_style
        self.variety = variety
        self._rng = random.Random(seed)
        self._margin = 1.0 / size
        self._styles_of: dict[int, dict[int, int]] = {}  # object -> style -> sprite
        for sprite, (thing, style) in enumerate(zip(world.sprite_object, world.sprite_style, strict=True)):
            self._styles_of.setdefault(int(thing), {})[int(style)] = sprite
        self._drawn = sorted(self._styles_of)
        if not self._drawn:
            raise ValueError("The world has no sprites, so there is nothing to put into a scene.")
        self._scenes = sorted(world.scenes)
        self._reach = _reach(world.sprites)
        self._blends = blends_in(world)
        self._colours = tuple(COLOURS)

    def sample(self, count: int, rng: random.Random | None = None) -> list[Scene]:
        """`count` scenes, drawn by `rng` or else by the sampler's own."""
        rng = rng or self._rng
        return [self._one(rng) for _ in range(count)]

    def place(
        self,
        things: Sequence[tuple[int, int]],
        rng: random.Random,
        *,
        colour: str | None = None,
        scene: str | None = None,
    ) -> Scene:
        """A scene of chosen things.

        Args:
            things: one or two pairs of an object's index and a style's.
            colour: a plain background of this colour, slightly jittered.
            scene: or this place; neither draws a background.
        """
        sprites = [self._sprite(thing, style) for thing, style in things]
        variety = self.variety
        sizes = variety.alone if len(things) == 1 else variety.in_pairs
        placed = [
            Placed(
                thing,
                style,
                0.5,
                0.5,
                rng.uniform(*sizes),
                rng.triangular(-variety.tilt, variety.tilt, 0.0),
                rng.random() < variety.mirrored,
            )
            for thing, style in things
        ]
        arranged = self._alone(placed, sprites, rng) if len(things) == 1 else self._two(placed, sprites, rng)
        if variety.cells is not None:
            arranged = [_snapped(one, variety.cells) for one in arranged]
        if colour is not None:
            background = Background(colours=(colour,), shades=(_shade(rng),))
        elif scene is not None:
            background = self._place_named(scene, rng)
        else:
            background = self._background(sprites, rng)
        return Scene(background, tuple(arranged))

    def styles_of(self, thing: int) -> list[int]:
        """The styles that an object is drawn in."""
        return sorted(self._styles_of.get(thing, {}))

    def colours_for(self, things: Sequence[tuple[int, int]]) -> list[str]:
        """The colours on which none of the things (object, style) is lost; all of them if there is none."""
        return self._clear_of([self._sprite(thing, style) for thing, style in things])

    def _one(self, rng: random.Random) -> Scene:
        first = rng.choice(self._drawn)
        style = rng.choice(self.styles_of(first))
        things = [(first, style)]
        if len(self._drawn) > 1 and rng.random() < self.pairs:
            second = first
            while second == first:
                second = rng.choice(self._drawn)
            styles = self.styles_of(second)
            same = style in styles and rng.random() < self.same_style
            things.append((second, style if same else rng.choice(styles)))
        return self.place(things, rng)

    def _sprite(self, thing: int, style: int) -> int:
        try:
            return self._styles_of[thing][style]
        except KeyError:
            raise ValueError(
                f"Object {thing} has no sprite in style {style}; it has {self.styles_of(thing)}."
            ) from None

    def _background(self, sprites: Sequence[int], rng: random.Random) -> Background:
        kind = rng.random()
        if self._scenes and kind >= self.plain + self.gradient:
            return self._place_named(rng.choice(self._scenes), rng)
        clear = self._clear_of(sprites)
        if kind < self.plain or len(clear) < 2 or not self.gradient:
            return Background(colours=(rng.choice(clear),), shades=(_shade(rng),))
        return Background(
            colours=tuple(rng.sample(clear, 2)),
            shades=(_shade(rng), _shade(rng)),
            direction=rng.choice(_DIRECTIONS),
        )

    def _place_named(self, scene: str, rng: random.Random) -> Background:
        variants = len(self.world.scenes[scene])
        return Background(scene=scene, variant=rng.randrange(variants), mirror=rng.random() < 0.5)

    def _clear_of(self, sprites: Sequence[int]) -> list[str]:
        lost = self._blends[list(sprites)].any(0)
        return [name for name, bad in zip(self._colours, lost, strict=True) if not bad] or list(self._colours)

    def _alone(self, placed: list[Placed], sprites: list[int], rng: random.Random) -> list[Placed]:
        one = placed[0]
        box = self._box(sprites[0], one)
        size = min(one.size, (1 - 2 * self._margin) / max(box[0] + box[1], box[2] + box[3]))
        off_centre = self.variety.off_centre
        x = self._within(0.5, off_centre, box[0] * size, box[1] * size, rng)
        y = self._within(0.5, off_centre, box[2] * size, box[3] * size, rng)
        return [_moved(one, x, y, size)]

    def _two(self, placed: list[Placed], sprites: list[int], rng: random.Random) -> list[Placed]:
        boxes = [self._box(sprite, one) for sprite, one in zip(sprites, placed, strict=True)]
        kind = rng.random()
        if kind >= 0.85:
            loose = self._loose(placed, boxes, rng)
            if loose is not None:
                return loose
        across = kind < 0.5 or kind >= 0.85
        order = [0, 1] if rng.random() < 0.5 else [1, 0]
        # The axis along which they stand, then the other one: how far each reaches to both sides, for size 1.
        along, aside = (slice(0, 2), slice(2, 4)) if across else (slice(2, 4), slice(0, 2))
        room = 1 - 2 * self._margin
        needed = sum(sum(boxes[index][along]) * placed[index].size for index in order)
        shrink = min(1.0, 1.04 * room / needed)  # a slight overlap is let pass
        sizes = [
            min(one.size * shrink, room / sum(box[aside])) for one, box in zip(placed, boxes, strict=True)
        ]
        slack = room - sum(sum(boxes[index][along]) * sizes[index] for index in order)
        cuts = sorted((rng.random(), rng.random()))
        before, between = (cuts[0] * slack, (cuts[1] - cuts[0]) * slack) if slack > 0 else (0.0, slack)
        result = list(placed)
        position = self._margin + before
        for index in order:
            low, high = (reach * sizes[index] for reach in boxes[index][along])
            centre = position + low
            position = centre + high + between
            other = self._within(0.5, 0.1, *(reach * sizes[index] for reach in boxes[index][aside]), rng)
            x, y = (centre, other) if across else (other, centre)
            result[index] = _moved(placed[index], x, y, sizes[index])
        return result

    def _loose(
        self, placed: list[Placed], boxes: list[tuple[float, float, float, float]], rng: random.Random
    ) -> list[Placed] | None:
        """Anywhere, while at most a tenth of the smaller box is covered; None if that wasn't found soon."""
        for _ in range(12):
            result, edges = [], []
            for one, (left, right, top, bottom) in zip(placed, boxes, strict=True):
                x = self._within(0.5, 0.5, left * one.size, right * one.size, rng)
                y = self._within(0.5, 0.5, top * one.size, bottom * one.size, rng)
                result.append(_moved(one, x, y, one.size))
                edges.append(
                    (x - left * one.size, x + right * one.size, y - top * one.size, y + bottom * one.size)
                )
            (al, ar, at, ab), (bl, br, bt, bb) = edges
            common = max(0.0, min(ar, br) - max(al, bl)) * max(0.0, min(ab, bb) - max(at, bt))
            if common <= 0.1 * min((ar - al) * (ab - at), (br - bl) * (bb - bt)):
                return result
        return None

    def _within(self, middle: float, jitter: float, low: float, high: float, rng: random.Random) -> float:
        """A centre near `middle` of something that reaches `low` before and `high` behind it."""
        share = rng.random()  # drawn in any case: rounding must not change what is drawn after it
        least, most = self._margin + low, 1 - self._margin - high
        if least > most:
            return (least + most) / 2
        start, end = (min(max(edge, least), most) for edge in (middle - jitter, middle + jitter))
        return start + share * (end - start)

    def _box(self, sprite: int, one: Placed) -> tuple[float, float, float, float]:
        """How far the tilted sprite reaches left, right, up and down of its centre, at size 1."""
        reach = self._reach[sprite]
        # Turning the sprite clockwise is looking at it from a direction turned the other way.
        left, right, top, bottom = (
            _looked_up(reach, _flipped(angle - one.tilt, one.mirror)) for angle in (180.0, 0.0, 270.0, 90.0)
        )
        return left, right, top, bottom


def blends_in(world: World) -> np.ndarray:
    """Which sprites are lost on which colours, as half of them is that colour: bool (N, len(COLOURS))."""
    colours = np.array(list(COLOURS.values()), np.int32)
    result = np.zeros((len(world.sprites), len(colours)), bool)
    for start in range(0, len(world.sprites), _CHUNK):
        pixels = world.sprites[start : start + _CHUNK, ::3, ::3].astype(np.int32)
        seen = pixels[..., 3] >= 128
        for index, colour in enumerate(colours):
            near = ((pixels[..., :3] - colour) ** 2).sum(-1) < 70**2
            result[start : start + _CHUNK, index] = 2 * (near & seen).sum((1, 2)) > seen.sum((1, 2))
    return result


def _reach(sprites: np.ndarray) -> np.ndarray:
    """How far each sprite reaches from its centre in 72 directions: (N, 72), in sides of its frame."""
    angles = np.deg2rad(np.arange(72) * 5.0)
    seen = sprites[..., 3] >= 32
    side = sprites.shape[1]
    columns = np.arange(side)
    # In any direction the furthest pixel is the first or the last of its row.
    first = np.where(seen, columns, side).min(2)
    last = np.where(seen, columns, -1).max(2)
    filled = last >= 0
    across = np.stack([first - side / 2, last + 1 - side / 2], -1) / side
    result = np.zeros((len(sprites), len(angles)), np.float32)
    for index, angle in enumerate(angles):
        edge = np.arange(side) + (1 if math.sin(angle) > 0 else 0) - side / 2
        distance = across * math.cos(angle) + (edge / side * math.sin(angle))[:, None]
        result[:, index] = np.where(filled[..., None], distance, 0).max((1, 2))
    return result


def _looked_up(reach: np.ndarray, degrees: float) -> float:
    """The reach in a direction between two of those measured, rounded up."""
    step = degrees / 5.0
    return float(max(reach[math.floor(step) % 72], reach[math.ceil(step) % 72]))


def _flipped(degrees: float, mirror: bool) -> float:
    return 180.0 - degrees if mirror else degrees


def _moved(one: Placed, x: float, y: float, size: float) -> Placed:
    return Placed(one.object_index, one.style_index, x, y, size, one.tilt, one.mirror)


def _snapped(one: Placed, cells: int) -> Placed:
    """The nearest place and size in which the thing's frame fills whole cells of the picture."""
    filled = min(max(round(one.size * cells), 1), cells)
    x, y = (
        (min(max(round(centre * cells - filled / 2), 0), cells - filled) + filled / 2) / cells
        for centre in (one.x, one.y)
    )
    return _moved(one, x, y, filled / cells)


def _shade(rng: random.Random) -> Colour:
    return (rng.randint(-_JITTER, _JITTER), rng.randint(-_JITTER, _JITTER), rng.randint(-_JITTER, _JITTER))
