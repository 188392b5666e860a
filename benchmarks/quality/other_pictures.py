"""Pictures of other prompts, on which drift is measured: drawn once for each base, and kept beside it.

Drawing them takes as long as learning a concept, and every process of a suite needs the same ones.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor

from cns_core.atomic_write import only_writer, write_atomically
from cns_core.host.draw import Sampling, draw
from cns_core.host.latents import encode_pixels
from cns_core.host.types import Loaded
from cns_core.memory_file import file_digest
from devtools.paths import HOST_BASE

from .fixed_noise import PAIRS
from .prompts import base_prompts

_SEED = 999


def other_pictures(loaded: Loaded, checkpoint: Path, side: int, cfg: float) -> tuple[list[str], Tensor]:
    """Prompts without a learned token and scaled latents `(PAIRS, C, h, w)` of what the base draws of them.

    checkpoint: the file that `loaded` comes from; side: of the pictures, in pixels.
    """
    prompts = base_prompts(PAIRS, _SEED)
    kept = HOST_BASE / "expanded" / f"others-{file_digest(checkpoint)[:16]}-{side}-{cfg:g}.safetensors"
    if kept.is_file():
        return prompts, load_file(kept)["latents"]
    drawn = draw(loaded, prompts, (side, side), list(range(PAIRS)), Sampling(cfg=cfg))
    latents = encode_pixels(loaded, drawn)
    with only_writer(kept.parent):
        write_atomically(kept, save({"latents": latents.contiguous()}))
    return prompts, latents
