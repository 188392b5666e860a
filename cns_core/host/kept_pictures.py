"""Pictures that are drawn once and kept on disk, as PNG files."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .kept import keep, set_aside, used


class KeptPictures:
    """Reads pictures, or has them drawn and keeps them.

    notes: gets what there is to tell about one that was not sound, and once that none can be kept.
    """

    def __init__(self, notes: list[str]) -> None:
        self._notes, self._told = notes, ""

    def get(self, path: Path, size: tuple[int, int], draw: Callable[[], Tensor]) -> tuple[Tensor, bool]:
        """The picture `(1, H, W, 3)` float32 in [0, 1] of that file, and whether it was drawn now.

        It is as a file holds it, so that it is the same when it comes from there the next time.
        size: height and width; a file of another size is not sound.
        draw: gives `(1, H, W, 3)`.

        Raises:
            ValueError: what was drawn holds NaN or infinity.
        """
        if (kept := self._read(path, size)) is not None:
            return kept, False
        drawn = draw()[0]
        if not bool(drawn.isfinite().all()):
            raise ValueError(
                "The model drew a picture of NaN or infinity, which nothing can be learned from or measured "
                "on. A VAE in half precision often does: start ComfyUI with --fp32-vae, or take another VAE."
            )
        pixels = drawn.mul(255).round().byte().cpu().contiguous()
        if not self._told and (told := keep(path, _as_png(pixels))):
            self._told = told
            self._notes.append(told)
        return _in_unit_range(pixels), True

    def _read(self, path: Path, size: tuple[int, int]) -> Tensor | None:
        if not path.exists():
            return None
        try:
            with Image.open(BytesIO(path.read_bytes()), formats=["PNG"]) as opened:
                if (opened.height, opened.width) != size:  # known before anything is unpacked
                    raise ValueError(
                        f"it is {opened.width} x {opened.height}, expected {size[1]} x {size[0]}"
                    )
                pixels = np.asarray(opened.convert("RGB")).copy()
        except Exception as error:  # Pillow's decoders raise anything from SyntaxError to struct.error
            self._notes.append(set_aside(path, f"{type(error).__name__}: {error}"))
            return None
        used(path)
        return _in_unit_range(torch.from_numpy(pixels))


def _as_png(pixels: Tensor) -> bytes:
    content = BytesIO()
    Image.fromarray(pixels.numpy()).save(content, format="PNG")
    return content.getvalue()


def _in_unit_range(pixels: Tensor) -> Tensor:
    return pixels.float().div(255)[None]
