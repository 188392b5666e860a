"""The pictures of scenes: batched torch, on the CPU or a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from .palette import COLOURS
from .wording import Background, Placed, Scene
from .world import SPRITE_SIZE, World

_LEVELS = (96, 72, 48, 36, 24, 16)  # sides that sprites are shrunk to in advance
_CHUNK = 64  # sprites worked on at once
# Pixels of pictures drawn at once. On the CPU little enough for the allocator to keep the memory: fresh pages
# for every batch cost more than the drawing does.
_PIXELS_ON_CPU, _PIXELS_ELSEWHERE = 1 << 18, 1 << 24


class Composer:
    """Draws scenes of one world as pictures of one size."""

    def __init__(
        self, world: World, size: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        """
        Args:
            size: the side of the pictures in pixels.
            dtype: of the pictures; the work is done in float32.
        """
        self.world, self.size, self.device, self.dtype = world, size, torch.device(device), dtype
        self._sprite_of = {
            (int(thing), int(style)): sprite
            for sprite, (thing, style) in enumerate(zip(world.sprite_object, world.sprite_style, strict=True))
        }
        self._levels: dict[int, torch.Tensor] = {}  # side -> uint8 (N, 4, side, side), alpha multiplied in
        self._places = {
            name: _resized(torch.from_numpy(variants.copy()).to(self.device).permute(0, 3, 1, 2), size)
            for name, variants in world.scenes.items()
        }
        steps = (torch.arange(size, device=self.device, dtype=torch.float32) + 0.5) / size
        self._across = steps.view(1, 1, 1, size)
        self._down = steps.view(1, 1, size, 1)

    @torch.no_grad()
    def render(self, scenes: Sequence[Scene]) -> torch.Tensor:
        """Pictures (B, 3, size, size), 0..1, of the composer's dtype on its device."""
        pixels = _PIXELS_ON_CPU if self.device.type == "cpu" else _PIXELS_ELSEWHERE
        step = max(1, pixels // self.size**2)
        pictures = torch.empty(len(scenes), 3, self.size, self.size, dtype=self.dtype, device=self.device)
        for start in range(0, len(scenes), step):
            pictures[start : start + step] = self._render(scenes[start : start + step])
        return pictures

    def empty(self, place: str) -> torch.Tensor:
        """All variants of a place with nothing in it: (V, 3, size, size), 0..1."""
        return self._places[place].to(self.dtype) / 255

    def _render(self, scenes: Sequence[Scene]) -> torch.Tensor:
        pictures = self._backgrounds([scene.background for scene in scenes])
        for layer in range(max((len(scene.placed) for scene in scenes), default=0)):
            rows = [row for row, scene in enumerate(scenes) if layer < len(scene.placed)]
            self._draw(pictures, rows, [scenes[row].placed[layer] for row in rows])
        return pictures.clamp_(0, 1)

    def _backgrounds(self, backgrounds: Sequence[Background]) -> torch.Tensor:
        ends = torch.tensor(
            [
                [_shaded(one, 0), _shaded(one, -1)] if one.colours else [(0, 0, 0), (0, 0, 0)]
                for one in backgrounds
            ],
            dtype=torch.float32,
        ).view(-1, 2, 3, 1, 1)
        ends = (ends / 255).to(self.device)
        # A gradient goes from 0 in one corner (or at one side) to 1 in the other.
        slopes = torch.tensor([one.direction for one in backgrounds], dtype=torch.float32).view(
            -1, 2, 1, 1, 1
        )
        slopes = (slopes / slopes.abs().sum(1, keepdim=True)).to(self.device)
        mix = 0.5 + slopes[:, 0] * (self._across - 0.5) + slopes[:, 1] * (self._down - 0.5)
        pictures = torch.lerp(ends[:, 0], ends[:, 1], mix)
        for row, one in enumerate(backgrounds):
            if one.scene is not None:
                place = self._places[one.scene][one.variant]
                pictures[row] = (place.flip(-1) if one.mirror else place).float() / 255
        return pictures

    def _draw(self, pictures: torch.Tensor, rows: Sequence[int], placed: Sequence[Placed]) -> None:
        """Put one sprite over each of the given pictures, in place."""
        groups: dict[int, list[int]] = {}
        for index, one in enumerate(placed):
            groups.setdefault(self._level_for(one.size), []).append(index)
        for side, members in groups.items():
            chosen = [placed[index] for index in members]
            sprites = self._level(side)[
                torch.tensor([self._sprite(one) for one in chosen], device=self.device)
            ].float()
            # Twice the picture's pixels, then the mean of each four: clean edges at any tilt.
            grid = F.affine_grid(
                torch.tensor([_inverse(one) for one in chosen]).to(self.device),
                [len(chosen), 4, 2 * self.size, 2 * self.size],
                align_corners=False,
            )
            drawn = F.grid_sample(sprites, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            drawn = F.avg_pool2d(drawn, 2) / 255
            into = torch.tensor([rows[index] for index in members], device=self.device)
            pictures[into] = pictures[into] * (1 - drawn[:, 3:]) + drawn[:, :3]

    def _sprite(self, one: Placed) -> int:
        try:
            return self._sprite_of[one.object_index, one.style_index]
        except KeyError:
            raise ValueError(
                f"Object {one.object_index} has no sprite in style {one.style_index}. "
                "Draw scenes with the world that they were made for."
            ) from None

    def _level_for(self, size: float) -> int:
        """The smallest level that is not enlarged by the sampling at twice the picture's pixels."""
        wanted = 2 * self.size * size
        return min((side for side in _LEVELS if side >= wanted), default=_LEVELS[0])

    def _level(self, side: int) -> torch.Tensor:
        if side not in self._levels:
            sprites = self.world.sprites
            parts = (sprites[start : start + _CHUNK].copy() for start in range(0, len(sprites), _CHUNK))
            self._levels[side] = torch.cat(
                [_shrunk(torch.from_numpy(part).to(self.device), side) for part in parts]
            )
        return self._levels[side]


def background_colour(images: torch.Tensor) -> list[str]:
    """The palette's colour nearest to the median of each picture's border, 8 % of the side wide.

    Args:
        images: (B, 3, height, width), 0..1.
    """
    height, width = images.shape[-2:]
    rows, columns = max(1, round(0.08 * height)), max(1, round(0.08 * width))
    border = torch.ones(height, width, dtype=torch.bool, device=images.device)
    border[rows : height - rows, columns : width - columns] = False
    median = images.float()[:, :, border].median(-1).values
    colours = torch.tensor(list(COLOURS.values()), dtype=torch.float32, device=images.device) / 255
    names = tuple(COLOURS)
    return [names[index] for index in torch.cdist(median, colours).argmin(1).tolist()]


def _shaded(background: Background, index: int) -> tuple[int, ...]:
    name = background.colours[index]
    if name not in COLOURS:
        raise ValueError(f"No colour is named {name!r}; there are {', '.join(COLOURS)}.")
    shade = background.shades[index] if background.shades else (0, 0, 0)
    return tuple(min(255, max(0, base + more)) for base, more in zip(COLOURS[name], shade, strict=True))


def _inverse(one: Placed) -> list[list[float]]:
    """From the picture to the sprite, both in -1..1, as `affine_grid` wants it."""
    cos, sin = math.cos(math.radians(one.tilt)) / one.size, math.sin(math.radians(one.tilt)) / one.size
    x, y = 2 * one.x - 1, 2 * one.y - 1
    side = -1.0 if one.mirror else 1.0
    return [
        [side * cos, side * sin, -side * (cos * x + sin * y)],
        [-sin, cos, sin * x - cos * y],
    ]


def _resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 (V, 3, size, size)."""
    resized = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
    return resized.round().clamp_(0, 255).to(torch.uint8)


def _shrunk(sprites: torch.Tensor, side: int) -> torch.Tensor:
    """uint8 (N, H, W, 4) -> (N, 4, side, side) with alpha multiplied in, so that edges don't darken."""
    pixels = sprites.permute(0, 3, 1, 2).float()
    pixels[:, :3] *= pixels[:, 3:] / 255
    if side != SPRITE_SIZE:
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return pixels.round().clamp_(0, 255).to(torch.uint8)
