"""Writes PNG files with the standard library alone: a training machine need not have an imaging library."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor


def write_png(path: Path, image: Tensor) -> None:
    """Write one (3, H, W) picture in [0, 1] as 8-bit RGB."""
    pixels = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().permute(1, 2, 0).numpy()
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # 0: this row is not filtered
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"".join(
        _chunk(kind, body)
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def sheet(images: Tensor, columns: int, zoom: int = 1, gap: int = 2) -> Tensor:
    """Lay (B, 3, H, W) pictures out as one (3, H', W') picture, row by row, on white."""
    images = images.detach().float().cpu()
    if zoom > 1:
        images = images.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    count, _, height, width = images.shape
    rows = -(-count // columns)
    result = images.new_ones(3, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        result[:, top : top + height, left : left + width] = image
    return result


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
