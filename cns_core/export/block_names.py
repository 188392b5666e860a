"""The projections' names in diffusers, from those in the original layout of Stable Diffusion's U-Nets.

So input_blocks.4.1.transformer_blocks.0.attn2.to_k becomes
down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAME = re.compile(r"(input_blocks|middle_block|output_blocks)\.(\d+)\.(?:1\.)?(transformer_blocks\..+)")


def in_transformer(name: str) -> bool:
    """Whether a weight is in a transformer block of a U-Net in Stable Diffusion's layout."""
    return _NAME.fullmatch(name) is not None


def diffusers_names(layers: Iterable[str]) -> dict[str, str]:
    """By the original name. ValueError for a layout that is not that of Stable Diffusion's U-Nets."""
    found = {name: _NAME.fullmatch(name) for name in layers}
    strange = next((name for name, match in found.items() if match is None), None)
    if strange is not None:
        raise ValueError(f"{strange} is not in an attention block of a U-Net in Stable Diffusion's layout.")
    parts = {name: match.groups() for name, match in found.items() if match is not None}
    blocks = _blocks_of_a_level({int(number) for side, number, _ in parts.values() if side == "input_blocks"})
    names = {}
    for name, (side, number, rest) in parts.items():
        if side == "middle_block":
            names[name] = f"mid_block.attentions.0.{rest}"
        elif side == "input_blocks":  # after the first convolution; each level ends with a halving
            level, block = divmod(int(number) - 1, blocks + 1)
            names[name] = f"down_blocks.{level}.attentions.{block}.{rest}"
        else:
            level, block = divmod(int(number), blocks + 1)
            names[name] = f"up_blocks.{level}.attentions.{block}.{rest}"
    return names


def _blocks_of_a_level(numbers: set[int]) -> int:
    """How many blocks with attention follow each other in a level of the U-Net's way down."""
    runs, run = [], 0
    for number in range(1, max(numbers, default=0) + 2):
        if number in numbers:
            run += 1
        elif run:
            runs.append(run)
            run = 0
    if len(set(runs)) != 1:
        raise ValueError(
            f"Attention in the input blocks {sorted(numbers)} is not that of Stable Diffusion's U-Nets, in "
            "which each level that has any has equally many."
        )
    return runs[0]
