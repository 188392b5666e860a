"""The colours that captions name, far enough apart to be told from each other in a small picture."""

from __future__ import annotations

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 48, 49),
    "orange": (240, 140, 40),
    "yellow": (250, 215, 70),
    "green": (70, 160, 75),
    "blue": (50, 95, 205),
    "purple": (130, 70, 170),
    "pink": (245, 160, 195),
    "brown": (125, 80, 50),
    "black": (22, 22, 26),
    "white": (247, 247, 245),
    "grey": (140, 143, 148),
    "teal": (50, 165, 165),
}
"""Name -> sRGB, 0..255."""
