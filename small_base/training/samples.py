"""Pictures on one sheet, to look at."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor


def save_sheet(path: Path, images: Tensor, columns: int, zoom: int = 1) -> None:
    """Lay (B, 3, H, W) pictures in [0, 1] out row by row on white, each `zoom` times as large, as one PNG."""
    from torchvision.utils import save_image

    path.parent.mkdir(parents=True, exist_ok=True)
    larger = images.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    save_image(larger, path, nrow=columns, pad_value=1.0)
