"""What the masked loss will learn, for people: pictures with what their masks leave out grey, dark and
hatched.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .concept import TrainingImage
from .images import fit, place_in, thumbnails

_LUMA = (0.299, 0.587, 0.114)
_DARK = 0.45  # of the brightness stays
_STRIPES = 12  # in a cell, along one side
_STRIPE = (0.62, 0.30, 0.34)  # red that is no picture's, and light enough on black


def mask_sheet(images: Sequence[TrainingImage], size: int = 256) -> Tensor:
    """The batch (B, side, side, 3) of `thumbnails`, with what is left out dimmed and hatched, in part where a
    mask is grey. Pictures without a mask are as they are there.
    """
    sheet = thumbnails(images, size)
    hatched = _hatching(sheet.shape[1])
    for cell, image in zip(sheet, images, strict=True):
        if image.mask is None:
            continue
        top, left, height, width = place_in(sheet.shape[1], image.pixels)
        part = cell[top : top + height, left : left + width]
        kept, _ = fit(image.mask[:, :, None].expand(-1, -1, 3), None, (height, width))
        grey = (part * part.new_tensor(_LUMA)).sum(dim=2, keepdim=True).expand_as(part) * _DARK
        stripes = hatched[top : top + height, left : left + width, None]
        left_out = torch.where(stripes, part.new_tensor(_STRIPE), grey)
        part.copy_(kept * part + (1 - kept) * left_out)
    return sheet


def told_masks(images: Sequence[TrainingImage]) -> str:
    """A line about how much of the pictures masks keep."""
    shares = [float(image.mask.mean()) for image in images if image.mask is not None]
    if not shares:
        return "No masks: masked loss would learn from whole pictures"
    low, high = min(shares), max(shares)
    some = f"{low:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"
    whole = len(images) - len(shares)
    return f"Masks keep {some} of {_pictures(len(shares))}" + (
        f"; of {_pictures(whole)} without one masked loss learns from all" if whole else ""
    )


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"


def _hatching(side: int) -> Tensor:
    """(side, side) bool: diagonal stripes, a third as wide as what is between them."""
    step = max(4, side // _STRIPES)
    along = torch.arange(side)
    return (along[:, None] + along[None, :]) % step < max(1, step // 4)
