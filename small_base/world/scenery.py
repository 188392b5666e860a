"""Places to put objects in front of, drawn from a seed: what is worth seeing keeps to the edges."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import numpy as np
from PIL import Image, ImageDraw

from .world import SCENE_SIZE

OVER = 3  # drawn this many times larger, then made small, which smooths the outlines
SIDE = SCENE_SIZE * OVER
TRAINED_VARIANTS = 24
HELD_OUT_VARIANTS = 12

Colour = tuple[int, int, int]


class Canvas:
    """A picture in the making; places and lengths are in fractions of its side, from the top left."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.image = Image.new("RGB", (SIDE, SIDE))
        self.draw = ImageDraw.Draw(self.image)

    def uniform(self, low: float, high: float) -> float:
        """A number between `low` and `high`."""
        return float(self.rng.uniform(low, high))

    def pick(self, *choices: Colour) -> Colour:
        """One of the colours."""
        return choices[int(self.rng.integers(len(choices)))]

    def vary(self, colour: Colour, by: int = 10) -> Colour:
        """A colour near `colour`."""
        red, green, blue = np.clip(np.array(colour) + self.rng.integers(-by, by + 1, 3), 0, 255)
        return int(red), int(green), int(blue)

    def gradient(self, top: Colour, bottom: Colour, start: float = 0.0, end: float = 1.0) -> None:
        """Fill the full width from `start` down to `end`, from one colour to another."""
        first, last = round(start * SIDE), round(end * SIDE)
        part = np.linspace(0, 1, max(1, last - first))[:, None]
        for row, colour in zip(
            range(first, last), np.array(top) * (1 - part) + np.array(bottom) * part, strict=True
        ):
            self.draw.line([(0, row), (SIDE, row)], fill=tuple(int(value) for value in colour))

    def gradient_over(self, colour: Colour, start: float, end: float) -> None:
        """Let the picture turn into `colour` from `start` down to `end`."""
        rows = (np.arange(SIDE) + 0.5) / SIDE
        part = ((rows - start) / (end - start)).clip(0, 1)[:, None, None]
        pixels = np.asarray(self.image, np.float32) * (1 - part) + np.array(colour, np.float32) * part
        self.image.paste(Image.fromarray(pixels.astype(np.uint8)))

    def polygon(self, points: list[tuple[float, float]], colour: Colour) -> None:
        """Fill a polygon."""
        self.draw.polygon([(x * SIDE, y * SIDE) for x, y in points], fill=colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """Fill a rectangle."""
        self.draw.rectangle([left * SIDE, top * SIDE, right * SIDE, bottom * SIDE], fill=colour)

    def disc(self, x: float, y: float, radius: float, colour: Colour, flat: float = 1.0) -> None:
        """Fill an ellipse, `flat` times as high as wide."""
        box = [
            (x - radius) * SIDE,
            (y - radius * flat) * SIDE,
            (x + radius) * SIDE,
            (y + radius * flat) * SIDE,
        ]
        self.draw.ellipse(box, fill=colour)

    def line(self, points: list[tuple[float, float]], colour: Colour, width: float) -> None:
        """Draw a line through points."""
        places = [(x * SIDE, y * SIDE) for x, y in points]
        self.draw.line(places, fill=colour, width=max(1, round(width * SIDE)), joint="curve")

    def ridge(self, height: float, swing: float, colour: Colour, waves: float = 1.5) -> None:
        """Fill everything below a wavy line."""
        first, second = self.uniform(0, 2 * math.pi), self.uniform(0, 2 * math.pi)
        points = []
        for step in range(65):
            x = step / 64
            wave = math.sin(2 * math.pi * waves * x + first) + 0.4 * math.sin(5.3 * waves * x + second)
            points.append((x, height + swing * wave))
        self.polygon([(0, 1), *points, (1, 1)], colour)

    def glow(self, x: float, y: float, radius: float, colour: Colour, strength: float) -> None:
        """Add soft light around a place."""
        grid = (np.arange(SIDE) + 0.5) / SIDE
        far = ((grid[None, :] - x) ** 2 + (grid[:, None] - y) ** 2) / radius**2
        light = strength * np.exp(-far)[..., None]
        pixels = np.asarray(self.image, np.float32)
        lit = pixels * (1 - light) + np.array(colour, np.float32) * light
        self.image.paste(Image.fromarray(lit.clip(0, 255).astype(np.uint8)))

    def cloud(self, x: float, y: float, size: float, colour: Colour) -> None:
        """A few puffs in a row."""
        for along, up, radius in (
            (-0.9, 0.1, 0.5),
            (-0.3, -0.25, 0.65),
            (0.4, -0.15, 0.6),
            (0.95, 0.12, 0.45),
        ):
            self.disc(x + along * size, y + up * size, radius * size, colour, 0.75)

    def fir(self, x: float, foot: float, height: float, colour: Colour, snow: Colour | None = None) -> None:
        """A fir in three tiers, with snow on them if given."""
        self.box(x - 0.02 * height, foot - 0.15 * height, x + 0.04 * height, foot, (96, 66, 46))
        for tier in range(3):
            top, low = foot - height * (1 - 0.24 * tier), foot - height * (0.56 - 0.22 * tier)
            half = height * (0.17 + 0.07 * tier)
            self.polygon([(x - half, low), (x, top), (x + half, low)], colour)
            if snow:
                self.polygon(
                    [
                        (x - half * 0.45, top + (low - top) * 0.45),
                        (x, top),
                        (x + half * 0.45, top + (low - top) * 0.45),
                    ],
                    snow,
                )

    def finished(self) -> np.ndarray:
        """The picture, uint8 (128, 128, 3)."""
        return np.asarray(self.image.resize((SCENE_SIZE, SCENE_SIZE), Image.Resampling.BOX))


def _side(canvas: Canvas, reach: float = 0.2) -> float:
    """A place across, near the left or the right edge."""
    near = canvas.uniform(0.02, reach)
    return near if canvas.rng.random() < 0.5 else 1 - near


def meadow(c: Canvas) -> None:
    """Green hills with flowers under a blue sky."""
    horizon = c.uniform(0.42, 0.55)
    c.gradient(c.vary((92, 172, 238)), (206, 234, 250), 0, horizon + 0.1)
    if c.rng.random() < 0.7:
        x = _side(c, 0.25)
        c.glow(x, 0.14, 0.2, (255, 246, 200), 0.7)
        c.disc(x, 0.14, 0.075, (255, 226, 96))
    for _ in range(c.rng.integers(2, 4)):
        c.cloud(c.uniform(0, 1), c.uniform(0.08, 0.26), c.uniform(0.06, 0.1), (252, 253, 255))
    c.ridge(horizon, 0.035, c.vary((150, 205, 105)), c.uniform(0.8, 1.6))
    c.ridge(horizon + 0.1, 0.03, c.vary((115, 188, 82)), c.uniform(0.8, 1.6))
    c.ridge(horizon + 0.24, 0.025, c.vary((84, 164, 66)), c.uniform(0.8, 1.6))
    petals = [c.pick((250, 250, 250), (250, 210, 70), (240, 120, 160), (190, 120, 220)) for _ in range(2)]
    for _ in range(46):
        y = c.uniform(horizon + 0.26, 0.99)
        x, size = c.uniform(0, 1), 0.006 + 0.016 * (y - horizon)
        if c.rng.random() < 0.55:
            c.line([(x - size, y - 2.2 * size), (x, y), (x + size, y - 2.2 * size)], (62, 138, 54), 0.006)
        else:
            c.disc(x, y, 1.5 * size, petals[int(c.rng.integers(2))])
            c.disc(x, y, 0.6 * size, (236, 170, 50))


def beach(c: Canvas) -> None:
    """Sand, sea and a palm."""
    horizon, shore = c.uniform(0.34, 0.42), c.uniform(0.58, 0.68)
    c.gradient(c.vary((70, 176, 240)), (190, 232, 248), 0, horizon)
    c.cloud(c.uniform(0.2, 0.9), c.uniform(0.08, 0.2), c.uniform(0.05, 0.09), (255, 255, 255))
    c.gradient(c.vary((24, 120, 190)), (84, 206, 208), horizon, 1)
    for _ in range(9):
        x, y = c.uniform(-0.1, 1), c.uniform(horizon + 0.03, shore - 0.06)
        c.line([(x, y), (x + c.uniform(0.06, 0.16), y)], (150, 222, 230), 0.007)
    state = c.rng.bit_generator.state
    c.ridge(shore - 0.025, 0.02, (246, 252, 252), 1.1)
    c.rng.bit_generator.state = state  # the same wave again: foam along the sand
    c.ridge(shore, 0.02, c.vary((240, 216, 158), 8), 1.1)
    for _ in range(90):
        c.disc(c.uniform(0, 1), c.uniform(shore + 0.06, 1), 0.004, c.pick((222, 192, 130), (250, 232, 186)))
    for _ in range(c.rng.integers(2, 5)):
        x, y = c.uniform(0.04, 0.96), c.uniform(0.86, 0.97)
        c.disc(x, y, 0.022, c.pick((246, 150, 120), (252, 240, 225), (238, 120, 110)), 0.75)
    left = c.rng.random() < 0.5
    foot, lean = (0.03, 0.11) if left else (0.97, -0.11)
    top = c.uniform(0.14, 0.22)
    c.line([(foot, shore + 0.16), (foot + 0.3 * lean, 0.45), (foot + lean, top)], (150, 104, 62), 0.036)
    for angle in range(-10, 191, 40):
        turn = math.radians(angle + c.uniform(-8, 8))
        ahead, aside = math.cos(turn), -math.sin(turn)
        tip = (foot + lean + 0.2 * ahead, top + 0.12 * aside + 0.06)
        middle = (foot + lean + 0.11 * ahead, top + 0.14 * aside - 0.03)
        c.polygon(
            [(foot + lean, top + 0.012), middle, tip, (middle[0], middle[1] + 0.045)],
            c.vary((48, 150, 74), 14),
        )


def night(c: Canvas) -> None:
    """A moon and stars above dark hills with a lit window."""
    c.gradient(c.vary((10, 14, 48), 6), c.vary((44, 56, 122), 8))
    for _ in range(60):
        c.disc(
            c.uniform(0, 1),
            c.uniform(0, 0.72),
            c.uniform(0.003, 0.009),
            c.pick((255, 255, 255), (255, 240, 190), (200, 214, 255)),
        )
    x, y, radius = _side(c, 0.28), c.uniform(0.12, 0.22), c.uniform(0.08, 0.11)
    c.glow(x, y, 2.2 * radius, (210, 216, 255), 0.5)
    c.disc(x, y, radius, (250, 244, 212))
    for across, down, size in ((-0.35, -0.2, 0.2), (0.3, 0.25, 0.26), (0.2, -0.42, 0.13)):
        c.disc(x + across * radius, y + down * radius, size * radius, (228, 220, 182))
    hill = c.uniform(0.7, 0.76)
    c.ridge(hill, 0.035, c.vary((26, 34, 84), 6), c.uniform(0.8, 1.5))
    house = _side(c, 0.24)
    c.box(house - 0.07, hill, house + 0.07, hill + 0.18, (14, 18, 46))
    c.polygon(
        [(house - 0.095, hill + 0.01), (house, hill - 0.09), (house + 0.095, hill + 0.01)], (14, 18, 46)
    )
    c.box(house - 0.035, hill + 0.04, house + 0.01, hill + 0.09, (255, 212, 104))
    c.ridge(hill + 0.14, 0.025, c.vary((14, 20, 56), 5), c.uniform(0.8, 1.5))


def snow(c: Canvas) -> None:
    """White hills, white firs, falling flakes."""
    c.gradient(c.vary((150, 186, 220), 8), (226, 236, 246), 0, 0.6)
    c.ridge(c.uniform(0.42, 0.5), 0.04, c.vary((204, 220, 238), 5), c.uniform(0.8, 1.5))
    ground = c.uniform(0.58, 0.64)
    for _ in range(c.rng.integers(4, 7)):
        x = _side(c, 0.3)
        c.fir(
            x, ground + c.uniform(0, 0.08), c.uniform(0.26, 0.46), c.vary((58, 112, 104), 12), (246, 250, 255)
        )
    c.ridge(ground + 0.06, 0.02, (240, 245, 252), c.uniform(0.8, 1.5))
    c.ridge(ground + 0.22, 0.02, (252, 253, 255), c.uniform(0.8, 1.5))
    for _ in range(70):
        c.disc(c.uniform(0, 1), c.uniform(0, 0.98), c.uniform(0.005, 0.012), (255, 255, 255))
    for _ in range(12):
        c.disc(c.uniform(0, 1), c.uniform(0.75, 1), c.uniform(0.02, 0.05), (228, 237, 249), 0.25)


def street(c: Canvas) -> None:
    """A row of houses behind a pavement and a road."""
    c.gradient(c.vary((150, 196, 232)), (228, 238, 244), 0, 0.6)
    kerb = c.uniform(0.6, 0.66)
    x = -c.uniform(0, 0.15)
    while x < 1:
        width, top = c.uniform(0.18, 0.28), c.uniform(0.1, 0.3)
        wall = c.vary(
            c.pick(
                (226, 120, 96),
                (240, 200, 120),
                (150, 178, 200),
                (214, 160, 170),
                (170, 190, 140),
                (196, 150, 112),
            )
        )
        c.box(x, top, x + width, kerb, wall)
        roof = c.pick((120, 66, 58), (84, 88, 102), (150, 80, 60))
        if c.rng.random() < 0.5:
            c.polygon([(x, top), (x + width / 2, top - 0.1), (x + width, top)], roof)
        else:
            c.box(x, top - 0.02, x + width, top + 0.012, roof)
        for row in range(2):
            for column in range(2):
                left = x + width * (0.16 + 0.42 * column)
                upper = top + 0.06 + 0.15 * row
                if upper + 0.09 < kerb - 0.02:
                    c.box(left, upper, left + width * 0.26, upper + 0.09, (248, 246, 236))
                    c.box(
                        left + 0.008,
                        upper + 0.008,
                        left + width * 0.26 - 0.008,
                        upper + 0.082,
                        c.pick((92, 134, 168), (255, 222, 140)),
                    )
        if top < kerb - 0.42:
            c.box(x + 0.4 * width, kerb - 0.12, x + 0.62 * width, kerb, (98, 62, 46))
        x += width
    c.box(0, kerb, 1, kerb + 0.08, (196, 192, 186))
    for tile in range(9):
        c.line([(tile / 8, kerb), (tile / 8 - 0.02, kerb + 0.08)], (168, 164, 158), 0.006)
    c.box(0, kerb + 0.08, 1, kerb + 0.1, (150, 146, 142))
    c.gradient(c.vary((92, 94, 100), 6), (70, 72, 78), kerb + 0.1, 1)
    shift = c.uniform(-0.2, 0)
    for dash in range(5):
        left = shift + 0.28 * dash
        c.polygon(
            [(left, 0.87), (left + 0.15, 0.87), (left + 0.14, 0.905), (left - 0.02, 0.905)], (246, 232, 160)
        )
    pole = _side(c, 0.1)
    c.box(pole - 0.01, 0.2, pole + 0.01, kerb + 0.06, (56, 60, 66))
    c.disc(pole, 0.2, 0.034, (255, 236, 170))


def room(c: Canvas) -> None:
    """A wall with a window or a picture, a wooden floor, a rug."""
    wall = c.vary(
        c.pick((238, 214, 190), (206, 222, 206), (228, 206, 220), (244, 230, 186), (196, 212, 230)), 6
    )
    floor = c.uniform(0.62, 0.7)
    c.box(0, 0, 1, floor, wall)
    stripe = tuple(max(0, value - 12) for value in wall)
    stripes = int(c.rng.integers(7, 12))
    for number in range(stripes):
        c.box(number / stripes, 0, (number + 0.45) / stripes, floor, stripe)
    wood = c.pick((186, 128, 78), (160, 106, 66), (206, 154, 100))
    c.box(0, floor, 1, 1, wood)
    edges = floor
    plank = 0.035
    while edges < 1:
        shade = tuple(max(0, value - 34) for value in wood)
        c.line([(0, edges), (1, edges)], shade, 0.006)
        for _ in range(3):
            joint = c.uniform(0, 1)
            c.line([(joint, edges), (joint, edges + plank)], shade, 0.005)
        edges += plank
        plank *= 1.35
    c.box(0, floor - 0.05, 1, floor, (250, 246, 238))
    c.line([(0, floor), (1, floor)], (140, 110, 84), 0.008)
    left = c.rng.random() < 0.5
    at = 0.17 if left else 0.83
    c.box(at - 0.15, 0.08, at + 0.15, 0.46, (252, 250, 244))
    c.box(at - 0.125, 0.105, at + 0.125, 0.435, c.pick((150, 206, 246), (250, 196, 140), (44, 58, 112)))
    c.box(at - 0.125, 0.26, at + 0.125, 0.28, (252, 250, 244))
    c.box(at - 0.01, 0.105, at + 0.01, 0.435, (252, 250, 244))
    curtain = c.pick((196, 84, 84), (84, 130, 160), (120, 150, 96), (214, 160, 70))
    c.polygon(
        [(at - 0.18, 0.06), (at - 0.08, 0.06), (at - 0.12, 0.3), (at - 0.14, 0.5), (at - 0.2, 0.5)], curtain
    )
    c.polygon(
        [(at + 0.18, 0.06), (at + 0.08, 0.06), (at + 0.12, 0.3), (at + 0.14, 0.5), (at + 0.2, 0.5)], curtain
    )
    c.box(at - 0.21, 0.045, at + 0.21, 0.07, (120, 84, 56))
    frame = 1 - at
    c.box(frame - 0.09, 0.14, frame + 0.09, 0.36, (150, 104, 60))
    c.box(frame - 0.07, 0.16, frame + 0.07, 0.34, c.pick((240, 226, 200), (120, 170, 150), (230, 140, 110)))
    c.disc(frame, 0.26, 0.04, c.pick((220, 90, 80), (250, 210, 90), (70, 110, 170)))
    rug = c.pick((188, 70, 76), (70, 110, 150), (226, 170, 90), (110, 140, 100))
    c.disc(0.5 + c.uniform(-0.05, 0.05), 0.88, 0.36, rug, 0.26)
    c.disc(0.5, 0.88, 0.29, tuple(min(255, value + 34) for value in rug), 0.24)


def desert(c: Canvas) -> None:
    """Dunes and cactuses under an orange sky."""
    c.gradient(c.vary(c.pick((246, 176, 96), (250, 196, 120), (240, 150, 90))), (255, 232, 180), 0, 0.62)
    x = _side(c, 0.3)
    c.glow(x, 0.16, 0.26, (255, 250, 220), 0.7)
    c.disc(x, 0.16, 0.09, (255, 248, 214))
    far = c.uniform(0.46, 0.52)
    for start in (c.uniform(-0.1, 0.1), c.uniform(0.65, 0.85)):
        width, top = c.uniform(0.2, 0.3), far - c.uniform(0.1, 0.18)
        c.polygon(
            [(start, 0.6), (start + 0.03, top), (start + width - 0.04, top), (start + width, 0.6)],
            c.vary((206, 112, 74)),
        )
    c.ridge(far + 0.05, 0.025, c.vary((236, 184, 112), 8), c.uniform(0.6, 1.2))
    c.ridge(far + 0.18, 0.03, c.vary((226, 164, 92), 8), c.uniform(0.6, 1.2))
    c.ridge(far + 0.32, 0.03, c.vary((214, 146, 76), 8), c.uniform(0.6, 1.2))
    for edge in (0, 1):
        x = c.uniform(0.05, 0.15) if edge == 0 else c.uniform(0.85, 0.95)
        foot, height = c.uniform(0.74, 0.9), c.uniform(0.2, 0.34)
        green = c.vary((74, 134, 74))
        c.line([(x, foot), (x, foot - height)], green, 0.05)
        c.disc(x, foot - height, 0.025, green)
        for way in (-1, 1):
            arm, up = foot - height * c.uniform(0.35, 0.6), c.uniform(0.07, 0.13)
            c.line([(x, arm), (x + way * 0.06, arm), (x + way * 0.06, arm - up)], green, 0.032)
            c.disc(x + way * 0.06, arm - up, 0.016, green)
    for _ in range(10):
        c.disc(c.uniform(0, 1), c.uniform(0.88, 0.98), c.uniform(0.006, 0.016), (176, 116, 62), 0.7)


def forest(c: Canvas) -> None:
    """Trunks on both sides under a dark green roof, a path of light between them."""
    c.gradient(c.vary((70, 128, 74), 8), c.vary((150, 192, 108), 8), 0, 0.9)
    c.glow(0.5, 0.42, 0.3, (226, 240, 170), 0.65)
    for _ in range(9):
        x = c.uniform(0, 1)
        c.box(x, 0.1, x + c.uniform(0.015, 0.03), 0.72, c.vary((76, 112, 66), 8))
    ground = c.uniform(0.7, 0.76)
    c.ridge(ground, 0.015, c.vary((96, 84, 48), 8), c.uniform(0.8, 1.4))
    c.polygon([(0.44, ground - 0.01), (0.56, ground - 0.01), (0.78, 1), (0.22, 1)], c.vary((168, 138, 88), 8))
    for x in (c.uniform(0.02, 0.06), c.uniform(0.15, 0.24), c.uniform(0.76, 0.85), c.uniform(0.94, 0.98)):
        width, foot = c.uniform(0.035, 0.06), c.uniform(ground + 0.03, ground + 0.16)
        bark = c.vary((92, 62, 40), 10)
        c.polygon(
            [
                (x - width * 0.7, 0),
                (x + width * 0.7, 0),
                (x + width, foot - 0.03),
                (x + 1.6 * width, foot),
                (x - 1.6 * width, foot),
                (x - width, foot - 0.03),
            ],
            bark,
        )
        for _ in range(4):
            y = c.uniform(0.2, foot - 0.1)
            c.line([(x + width * 0.3, y), (x + width * 0.3, y + 0.06)], (66, 44, 30), 0.008)
    for _ in range(60):
        x = c.uniform(-0.05, 1.05)
        reach = 0.1 + 0.24 * abs(x - 0.5)
        c.disc(
            x,
            c.uniform(-0.02, reach),
            c.uniform(0.05, 0.09),
            c.vary(c.pick((36, 94, 48), (52, 116, 54), (30, 78, 44)), 8),
            0.8,
        )
    for _ in range(36):
        x, y = _side(c, 0.3), c.uniform(ground + 0.06, 1)
        c.disc(
            x, y, c.uniform(0.012, 0.03), c.vary(c.pick((58, 124, 56), (80, 142, 62), (170, 110, 50)), 8), 0.6
        )


def coral_reef(c: Canvas) -> None:
    """Under water: rays of light, bubbles, corals along the bottom."""
    c.gradient(c.vary((66, 196, 220), 8), c.vary((6, 62, 130), 8))
    for _ in range(4):
        x = c.uniform(0, 0.9)
        c.polygon([(x, 0), (x + 0.07, 0), (x - 0.04, 0.8), (x - 0.2, 0.8)], (86, 200, 222))
    c.gradient_over((8, 76, 146), 0.2, 0.85)
    c.ridge(0.86, 0.02, c.vary((206, 182, 130), 8), 1.2)
    colours = ((246, 96, 120), (250, 150, 60), (200, 90, 200), (250, 210, 80), (240, 120, 170))
    for _ in range(11):
        x, foot = _side(c, 0.34), c.uniform(0.88, 0.98)
        colour, size = c.vary(c.pick(*colours), 10), c.uniform(0.1, 0.2)
        if c.rng.random() < 0.6:
            for angle in (-50, -25, 0, 25, 50):
                turn = math.radians(angle + c.uniform(-8, 8))
                end = (x + size * math.sin(turn), foot - size * math.cos(turn) * c.uniform(0.9, 1.5))
                c.line([(x, foot), ((x + end[0]) / 2 + 0.01, (foot + end[1]) / 2), end], colour, 0.028)
                c.disc(*end, 0.02, colour)
        else:
            c.disc(x, foot, 0.5 * size, colour, 0.9)
            for _ in range(6):
                spot = tuple(max(0, value - 40) for value in colour)
                c.disc(x + c.uniform(-0.3, 0.3) * size, foot - c.uniform(0.05, 0.35) * size, 0.011, spot)
    for edge in (0.03, 0.97):
        for blade in range(3):
            x = edge + 0.03 * (blade - 1)
            points = [
                (x + 0.016 * math.sin(4 * step + blade), 1 - 0.1 * step)
                for step in range(int(c.rng.integers(3, 7)))
            ]
            c.line(points, c.vary((40, 150, 90), 12), 0.02)
    for _ in range(26):
        x, y, radius = c.uniform(0, 1), c.uniform(0.03, 0.8), c.uniform(0.007, 0.02)
        c.disc(x, y, radius, (196, 240, 248))
        c.disc(x, y, radius * 0.7, (96, 190, 216))


def volcano(c: Canvas) -> None:
    """An erupting mountain, rivers of lava, a red sky."""
    c.gradient(c.vary((46, 14, 26), 6), c.vary((226, 84, 40), 8), 0, 0.85)
    for _ in range(6):
        c.cloud(c.uniform(0, 1), c.uniform(0.02, 0.16), c.uniform(0.08, 0.14), c.vary((66, 34, 40), 8))
    peak, top = c.uniform(0.4, 0.6), c.uniform(0.3, 0.36)
    c.glow(peak, top, 0.24, (255, 180, 60), 0.85)
    for _ in range(16):
        turn, far = c.uniform(-0.9, 0.9), c.uniform(0.06, 0.28)
        c.disc(
            peak + far * math.sin(turn),
            top - far * math.cos(turn),
            c.uniform(0.008, 0.02),
            c.pick((255, 220, 90), (255, 150, 40)),
        )
    rock = c.vary((58, 36, 38), 6)
    c.polygon([(peak - 0.48, 0.82), (peak - 0.09, top), (peak + 0.09, top), (peak + 0.48, 0.82)], rock)
    c.disc(peak, top, 0.09, (255, 190, 60), 0.28)
    for shift in (-0.05, 0.0, 0.06):
        points, x = [], peak + shift
        for step in range(8):
            points.append((x, top + 0.065 * step))
            x += shift * 0.55 + c.uniform(-0.02, 0.02)
        c.line(points, (236, 74, 22), 0.036)
        c.line(points, (255, 170, 50), 0.016)
    c.ridge(0.78, 0.02, c.vary((40, 26, 30), 5), c.uniform(0.8, 1.4))
    for _ in range(3):
        y = c.uniform(0.84, 0.97)
        points = [(step / 12, y + 0.02 * math.sin(step * 1.3 + y * 40)) for step in range(13)]
        c.line(points, (230, 70, 20), 0.034)
        c.line(points, (255, 176, 56), 0.013)


def space(c: Canvas) -> None:
    """Stars, a nebula, planets with rings; no ground."""
    c.gradient(c.vary((12, 6, 30), 5), c.vary((28, 10, 56), 6))
    hues = ((150, 40, 170), (220, 60, 140), (40, 110, 190), (90, 40, 190))
    for _ in range(6):
        c.glow(c.uniform(0, 1), c.uniform(0, 1), c.uniform(0.14, 0.3), c.pick(*hues), c.uniform(0.3, 0.6))
    for _ in range(110):
        c.disc(
            c.uniform(0, 1),
            c.uniform(0, 1),
            c.uniform(0.003, 0.008),
            c.pick((255, 255, 255), (190, 220, 255), (255, 230, 200)),
        )
    corners = [(0.16, 0.2), (0.84, 0.22), (0.17, 0.82), (0.84, 0.8)]
    c.rng.shuffle(corners)
    for number, (x, y) in enumerate(corners[: int(c.rng.integers(2, 4))]):
        radius = c.uniform(0.07, 0.13)
        colour = c.vary(c.pick((240, 150, 80), (100, 190, 210), (230, 100, 110), (170, 200, 110)), 10)
        dark = tuple(int(value * 0.72) for value in colour)
        if number == 0:
            c.disc(x, y, 1.9 * radius, (236, 216, 170), 0.32)
            c.disc(x, y, 1.5 * radius, (40, 20, 70), 0.26)
        c.disc(x, y, radius, dark)
        c.disc(x - 0.12 * radius, y - 0.12 * radius, radius * 0.86, colour)
        c.disc(x - 0.3 * radius, y + 0.2 * radius, radius * 0.2, dark)
        c.disc(x + 0.25 * radius, y - 0.3 * radius, radius * 0.14, dark)


SCENES: dict[str, Callable[[Canvas], None]] = {
    "meadow": meadow,
    "beach": beach,
    "night": night,
    "snow": snow,
    "street": street,
    "room": room,
    "desert": desert,
    "forest": forest,
    "coral reef": coral_reef,
    "volcano": volcano,
    "space": space,
}
"""Name -> what draws it."""


def draw_scenes(seed: int, held_out: Collection[str]) -> dict[str, np.ndarray]:
    """Every scene's variants: name -> uint8 (V, 128, 128, 3). One seed always draws the same."""
    drawn = {}
    for number, (name, scene) in enumerate(SCENES.items()):
        variants = []
        for variant in range(HELD_OUT_VARIANTS if name in held_out else TRAINED_VARIANTS):
            canvas = Canvas(np.random.default_rng([seed, number, variant]))
            scene(canvas)
            variants.append(canvas.finished())
        drawn[name] = np.stack(variants)
    return drawn
