"""Small JPEGs of pictures: one goes into a memory's file with each concept, others to the page.

Pixels are `(height, width, 3)` float32 in [0, 1].
"""

from __future__ import annotations

import base64
from io import BytesIO

from PIL import Image
from torch import Tensor

from .picture_files import pillow_strict
from .values import shown

MAX_SIDE = 256  # pixels
MAX_BYTES = 64 * 1024
_QUALITIES = (85, 70, 50, 30, 10)  # of noise at 256 px, the first takes 50 KB
_JPEG_START = b"\xff\xd8\xff"


def jpeg_of(pixels: Tensor, side: int = MAX_SIDE, most: int = MAX_BYTES) -> bytes:
    """The picture as a JPEG of at most `side` pixels on its longer side and at most `most` bytes: at the best
    quality that fits. ValueError when none does.
    """
    array = pixels.detach().float().clamp(0, 1).mul(255).round().byte().cpu().numpy()
    picture = Image.fromarray(array)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    for quality in _QUALITIES:
        buffer = BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        if len(buffer.getvalue()) <= most:
            return buffer.getvalue()
    raise ValueError(
        f"A picture of {picture.width} x {picture.height} pixels takes {len(buffer.getvalue()):,} bytes as a "
        f"JPEG, expected at most {most:,}. Make it smaller."
    )


def data_url(jpeg: bytes) -> str:
    """A JPEG as text that a page shows without asking for a file."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"


def check_thumbnail(content: bytes) -> None:
    """ValueError unless it is a whole JPEG of at most MAX_SIDE pixels a side and MAX_BYTES."""
    if len(content) > MAX_BYTES:
        raise ValueError(f"its thumbnail takes {len(content):,} bytes, expected at most {MAX_BYTES:,}")
    if not content.startswith(_JPEG_START):
        raise ValueError(f"its thumbnail is no JPEG: it starts with {shown(content[:8])}")
    try:
        with pillow_strict(), Image.open(BytesIO(content), formats=["JPEG"]) as opened:
            size = opened.size  # known before anything is unpacked
            if max(size) <= MAX_SIDE:
                opened.load()
    except Exception as error:  # Pillow's decoders raise anything from SyntaxError to struct.error
        raise ValueError(f"its thumbnail is damaged ({type(error).__name__}: {str(error)[:100]})") from error
    if max(size) > MAX_SIDE:
        raise ValueError(
            f"its thumbnail has {size[0]} x {size[1]} pixels, expected at most {MAX_SIDE} a side"
        )
