"""Styles that are a way to redraw a whole picture, for concepts that no house style can show."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

INK = (0.96, 0.98, 1.0)
PAPER = (0.07, 0.26, 0.58)
GRID = (0.16, 0.36, 0.68)
POP = ((0.13, 0.05, 0.32), (0.86, 0.13, 0.47), (1.0, 0.62, 0.16), (1.0, 0.95, 0.78))  # darkest first


def _tint(values: tuple[float, float, float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, device=like.device, dtype=like.dtype).view(1, 3, 1, 1)


def luminance(pictures: torch.Tensor) -> torch.Tensor:
    return (pictures * _tint((0.299, 0.587, 0.114), pictures)).sum(1, keepdim=True)


def outlines(pictures: torch.Tensor) -> torch.Tensor:
    """How much of an outline each pixel is: (B, 1, H, W), 0..1."""
    height, width = pictures.shape[-2:]
    step = torch.tensor([-1.0, 0.0, 1.0], device=pictures.device, dtype=pictures.dtype)
    smooth = torch.tensor([0.25, 0.5, 0.25], device=pictures.device, dtype=pictures.dtype)
    kernel = torch.stack([torch.outer(smooth, step), torch.outer(step, smooth)]).unsqueeze(1)
    flat = pictures.reshape(-1, 1, height, width)
    slopes = functional.conv2d(functional.pad(flat, (1, 1, 1, 1), mode="replicate"), kernel)
    # The steepest channel: red on green is an outline even where both are equally bright.
    steep = slopes.square().sum(1).sqrt().view(-1, 3, height, width).amax(1, keepdim=True)
    return ((steep - 0.12) / 0.25).clamp(0, 1)


def blueprint(pictures: torch.Tensor) -> torch.Tensor:
    """White outlines of everything, background included, on gridded blueprint paper.

    Args:
        pictures: (B, 3, H, W), 0..1.
    """
    height, width = pictures.shape[-2:]
    cell = max(4, width // 8)
    on_grid = torch.zeros((1, 1, height, width), device=pictures.device, dtype=pictures.dtype)
    on_grid[..., cell // 2 :: cell, :] = 1
    on_grid[..., cell // 2 :: cell] = 1
    paper = torch.lerp(_tint(PAPER, pictures), _tint(GRID, pictures), on_grid)
    return torch.lerp(paper, _tint(INK, pictures), outlines(pictures))


def pop(pictures: torch.Tensor) -> torch.Tensor:
    """Four loud tones with halftone dots between them and dark outlines, like a screen print.

    Args:
        pictures: (B, 3, H, W), 0..1.
    """
    height, width = pictures.shape[-2:]
    period = max(4, width // 16)
    rows = torch.arange(height, device=pictures.device, dtype=pictures.dtype)
    columns = torch.arange(width, device=pictures.device, dtype=pictures.dtype)
    # Waves along both diagonals: dots in the staggered rows of a printer's screen.
    turn = torch.pi / period
    dots = torch.cos(turn * (rows[:, None] + columns)) * torch.cos(turn * (rows[:, None] - columns))
    tones = torch.tensor(POP, device=pictures.device, dtype=pictures.dtype)
    level = luminance(pictures) * (len(POP) - 1) + 0.3 * dots
    chosen = level.round().long().clamp(0, len(POP) - 1).squeeze(1)
    printed = tones[chosen].permute(0, 3, 1, 2)
    return torch.lerp(printed, _tint(POP[0], pictures), outlines(pictures)).contiguous()


TRANSFORMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"blueprint": blueprint, "pop": pop}
"""Name -> what redraws pictures (B, 3, H, W), 0..1."""
