"""A vision transformer that starts out looking at each patch's neighbours, as a convolution does.

From a random start a transformer has to find out which patches are near each other, and from the few pictures
that a CPU gets through it hardly does. Here most heads attend to one place beside their own from the first
step on, and are free to learn otherwise (after "Structured Initialization for Attention in Vision
Transformers", arXiv 2404.01139).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_SHARPNESS = 6.0  # how much higher the logit of the place looked at is than that of its row and its column
_PLACE_AMPLITUDE = 0.5  # of the position's waves
_CONTENTS = 0.3  # standard deviation of what an untrained patch embedding makes of pictures


@torch.no_grad()
def look_around(vision: nn.Module) -> None:
    """Give a fresh `CLIPVisionModel` positions that can be told apart, and heads that look beside them.

    Positions are cosines and sines of odd frequencies in the last channels, whose products are 1 where two
    places are the same and 0 for any other two. The first nine heads of each layer look at the 3 x 3 places
    around their own, the rest are left as they are.

    Raises:
        ValueError: with fewer than nine heads, or heads too narrow for the positions.
    """
    side = math.isqrt(vision.embeddings.num_patches)
    frequencies = torch.arange(1, side, 2) * math.pi / side
    channels = 4 * len(frequencies)  # cosine and sine, across and down
    layers = vision.encoder.layers
    attention = layers[0].self_attn
    if attention.num_heads < 9 or attention.head_dim < channels:
        raise ValueError(
            f"{attention.num_heads} heads of {attention.head_dim} channels; 3 x 3 places among "
            f"{side} x {side} take 9 heads of {channels}"
        )
    places = torch.arange(side, dtype=torch.float32)
    down, across = (grid.flatten() for grid in torch.meshgrid(places, places, indexing="ij"))
    table = vision.embeddings.position_embedding.weight
    table[:, -channels:] = 0
    table[1:, -channels:] = _PLACE_AMPLITUDE * _waves(across, down, frequencies)
    vision.embeddings.class_embedding[-channels:] = 0
    vision.embeddings.patch_embedding.weight[-channels:] = 0
    # After the norm a position's channels are as large as their share of the whole.
    contents = _CONTENTS * torch.randn_like(table[1:])
    contents[:, -channels:] = 0
    seen = vision.pre_layrnorm(table[1:] + contents)[:, -channels:]
    square = float(seen.square().sum(-1).mean()) / 2  # across and down
    gain = math.sqrt(_SHARPNESS / (square * attention.scale))
    for layer in layers:
        attention = layer.self_attn
        for written in (attention.out_proj.weight, layer.mlp.fc2.weight):
            written[-channels:] = 0
        for head, offset in enumerate((x, y) for y in (-1, 0, 1) for x in (-1, 0, 1)):
            rows = slice(head * attention.head_dim, head * attention.head_dim + channels)
            whole = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
            for matrix in (attention.q_proj.weight, attention.k_proj.weight):
                matrix[whole] = 0
            attention.q_proj.weight[rows, -channels:] = gain * torch.eye(channels)
            attention.k_proj.weight[rows, -channels:] = gain * _turn(offset, frequencies)


def _waves(across: Tensor, down: Tensor, frequencies: Tensor) -> Tensor:
    """(n,) and (n,) coordinates -> (n, 4 f)."""
    x, y = across[:, None] * frequencies, down[:, None] * frequencies
    return torch.cat((x.cos(), x.sin(), y.cos(), y.sin()), 1) / math.sqrt(len(frequencies))


def _turn(offset: tuple[int, int], frequencies: Tensor) -> Tensor:
    """The matrix that makes the waves of a place those of the place `offset` before it: (4 f, 4 f)."""
    count = len(frequencies)
    turn = torch.zeros(4 * count, 4 * count)
    for axis, step in enumerate(offset):
        cos, sin = torch.diag((step * frequencies).cos()), torch.diag((step * frequencies).sin())
        first = slice(2 * axis * count, (2 * axis + 1) * count)
        second = slice((2 * axis + 1) * count, (2 * axis + 2) * count)
        turn[first, first], turn[first, second] = cos, sin
        turn[second, first], turn[second, second] = -sin, cos
    return turn
