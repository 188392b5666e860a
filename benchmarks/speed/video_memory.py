"""What learning a concept takes of a GPU's memory, computed: the full-size U-Nets without their weights.

    python3 dev.py bench memory                                 SD 1.5 at 512 px, SDXL at 1024 px
    python3 dev.py bench memory --models sdxl --pixels 768 --batch 1

Nothing is run: the forward goes over tensors that have a shape and no values, in bfloat16, and what autograd
would keep of it is counted (`cns_core/footprint.py`). Attention is counted as fused kernels keep it. What
allocators lose, and the workspace of single operations, are not in it; training reckons with 15 % and 200 MB
for them (`cns_core/host/training_memory.py`).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..host import start_host

PIXELS = {"sd15": 512, "sdxl": 1024}
_TOKENS = 77
_DTYPE = torch.bfloat16
_GIB = 2**30
# Of the text encoders, in bfloat16 beside a U-Net that trains in it, by their published sizes.
_TEXT = {"sd15": 123_060_480, "sdxl": 123_060_480 + 694_659_840}
_EARLIER = 19  # concepts by directions that lie beneath the twentieth


@dataclass(frozen=True)
class Figures:
    """Bytes. directions, cns: values, gradients and Adam's moments by default settings; earlier: what
    nineteen concepts by directions take beneath the twentieth.
    """

    model: str
    pixels: int
    batch: int
    unet: int
    text: int
    whole: int
    recomputed: int
    directions: int
    cns: int
    earlier: int

    def row(self) -> str:
        least = self.unet + self.text + self.recomputed + self.directions
        most = self.unet + self.text + self.whole + self.directions
        sizes = (self.unet, self.text, self.whole, self.recomputed, self.directions, self.cns, self.earlier)
        sizes += (most, least)
        cells = [self.model, str(self.pixels), str(self.batch), *(f"{size / _GIB:.2f}" for size in sizes)]
        return f"| {' | '.join(cells)} |"


HEAD = (
    "| model | px | batch | U-Net | text encoders | kept for the backward | with checkpointing "
    "| trained by directions | trained by CNS | nineteen earlier by directions "
    "| in all, the first by directions | with checkpointing |"
)


class _Fused(torch.autograd.Function):
    """Keeps what a fused attention kernel keeps: what it reads and puts out, and a number a row and head."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        out = torch.empty_like(q)
        sums = torch.empty(q.shape[0], heads, q.shape[1], dtype=torch.float32, device=q.device)
        ctx.save_for_backward(q, k, v, out, sums)
        return out


def _attention(func: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, *more: Any, **options: Any) -> Tensor:
    out: Tensor = _Fused.apply(q, k, v, heads)
    return out


def figures(model: str, pixels: int, batch: int) -> Figures:
    """Of one training step without a prior, which would double the batch."""
    import comfy.ops
    from comfy.ldm.modules.attention import BasicTransformerBlock
    from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel

    from cns_core.footprint import kept_for_backward, storage_of
    from cns_core.methods import METHODS
    from cns_core.projections import find_projections

    from .models import SHARE, unet_config

    meta = torch.device("meta")
    operations = comfy.ops.disable_weight_init
    unet = UNetModel(**unet_config(model), dtype=_DTYPE, device=meta, operations=operations)
    unet.requires_grad_(False)
    layout = find_projections({name: p.shape for name, p in unet.named_parameters()})
    side, width = pixels // 8, layout.shapes[0][1]
    latents = torch.empty(batch, 4, side, side, dtype=_DTYPE, device=meta)
    text = torch.empty(batch, _TOKENS, width, dtype=_DTYPE, device=meta, requires_grad=True)
    vector = torch.empty(batch, 2816, dtype=_DTYPE, device=meta) if model == "sdxl" else None
    levels = torch.empty(batch, device=meta)
    options = {"optimized_attention_override": _attention}

    def forward() -> Tensor:
        out: Tensor = unet(latents, levels, context=text, y=vector, transformer_options=options)
        return out

    blocks = [m for m in unet.modules() if isinstance(m, BasicTransformerBlock | ResBlock)]
    kept = kept_for_backward(forward, blocks, {storage_of(p) for p in unet.parameters()})
    rows, count = sum(out for out, _ in layout.shapes), METHODS["directions"].Training().directions
    return Figures(
        model,
        pixels,
        batch,
        sum(p.numel() for p in unet.parameters()) * _DTYPE.itemsize,
        _TEXT[model] * _DTYPE.itemsize,
        kept.whole,
        kept.recomputed,
        rows * count * 16,
        round(layout.total * SHARE) * 16,
        _EARLIER * count * (rows + width) * 4,
    )


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench memory", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=tuple(PIXELS), default=list(PIXELS))
    parser.add_argument("--pixels", type=int, help="a side of the pictures; default: what the model is for")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2, 4])
    options = parser.parse_args()
    start_host()
    print(f"GiB of memory, computed\n\n{HEAD}\n|{' --- |' * 12}")
    for model in options.models:
        for batch in options.batch:
            print(figures(model, options.pixels or PIXELS[model], batch).row(), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
