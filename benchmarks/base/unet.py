"""SD 1.5's U-Net in small: the same modules under the same names, with fewer levels and blocks.

A state dict of `UNet` is a checkpoint's part "model.diffusion_model." without that prefix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LATENT_CHANNELS = 4
CONTEXT_WIDTH = 768
WIDTH = 320
HEADS = 8

_TIME_WIDTH = 4 * WIDTH
_GROUPS = 32
_LONGEST_PERIOD = 10_000.0


class UNet(nn.Module):
    """Predicts the noise in latents. One residual block and one transformer a level, on the way down.

    Args:
        channel_mult: each level's width in units of 320, from the finest on; each further level has half the
            resolution. (1,) makes 26 M parameters, (1, 1) makes 44 M.
    """

    def __init__(self, channel_mult: Sequence[int]) -> None:
        super().__init__()
        if not channel_mult or min(channel_mult) < 1:
            raise ValueError(f"channel_mult is {channel_mult!r}; give a whole number >= 1 for each level")
        widths = [WIDTH * factor for factor in channel_mult]
        self.time_embed = nn.Sequential(
            nn.Linear(WIDTH, _TIME_WIDTH), nn.SiLU(), nn.Linear(_TIME_WIDTH, _TIME_WIDTH)
        )

        self.input_blocks = nn.ModuleList([_Stage(nn.Conv2d(LATENT_CHANNELS, WIDTH, 3, padding=1))])
        skipped = [WIDTH]  # the width of what each input block leaves for an output block
        width = WIDTH
        for level, level_width in enumerate(widths):
            if level:
                self.input_blocks.append(_Stage(_Downsample(width)))
                skipped.append(width)
            self.input_blocks.append(_Stage(_ResBlock(width, level_width), _SpatialTransformer(level_width)))
            skipped.append(level_width)
            width = level_width

        self.middle_block = _Stage(
            _ResBlock(width, width), _SpatialTransformer(width), _ResBlock(width, width)
        )

        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(widths))):
            # Two for each one on the way down: the last takes the skip of what leads into the level.
            for last in (False, True):
                modules = [
                    _ResBlock(width + skipped.pop(), widths[level]),
                    _SpatialTransformer(widths[level]),
                ]
                if last and level:
                    modules.append(_Upsample(widths[level]))
                self.output_blocks.append(_Stage(*modules))
                width = widths[level]

        self.out = nn.Sequential(
            nn.GroupNorm(_GROUPS, width), nn.SiLU(), _zeroed(nn.Conv2d(width, LATENT_CHANNELS, 3, padding=1))
        )

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """The noise in `x`.

        Args:
            x: noisy latents (B, 4, h, w), unit variance.
            t: timesteps (B,), 0..999, whole or not.
            context: encoded texts (B, n, 768).
        """
        return self.noise_and_middle(x, t, context)[0]

    def noise_and_middle(self, x: Tensor, t: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and what the middle block found (B, width, h', w') in the coarsest places."""
        time = self.time_embed(timestep_embedding(t).to(x.dtype))
        skips: list[Tensor] = []
        for block in self.input_blocks:
            x = block(x, time, context)
            skips.append(x)
        x = middle = self.middle_block(x, time, context)
        for block in self.output_blocks:
            x = torch.cat((x, skips.pop()), dim=1)
            # An odd side was rounded up on the way down, so doubling would not always give the skip's size.
            x = block(x, time, context, skips[-1].shape[-2:] if skips else None)
        return self.out(x), middle


def timestep_embedding(t: Tensor) -> Tensor:
    """(B,) timesteps -> (B, 320) float32: cosines, then sines, of 160 frequencies from 1 down to 1/10000."""
    half = WIDTH // 2
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = t.float()[:, None] * torch.exp(-math.log(_LONGEST_PERIOD) * exponents)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class _Stage(nn.ModuleList):
    """Modules in a row, each given what it takes."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__(modules)

    def forward(self, x: Tensor, time: Tensor, context: Tensor, size: Sequence[int] | None = None) -> Tensor:
        for module in self:
            if isinstance(module, _ResBlock):
                x = module(x, time)
            elif isinstance(module, _SpatialTransformer):
                x = module(x, context)
            elif isinstance(module, _Upsample):
                x = module(x, size)
            else:
                x = module(x)
        return x


class _ResBlock(nn.Module):
    """Two convolutions with the time added in between, beside the input."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(_GROUPS, width_in), nn.SiLU(), nn.Conv2d(width_in, width_out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(_TIME_WIDTH, width_out))
        # The identity is the place of LDM's dropout: it gives the convolution its index in checkpoints.
        self.out_layers = nn.Sequential(
            nn.GroupNorm(_GROUPS, width_out),
            nn.SiLU(),
            nn.Identity(),
            _zeroed(nn.Conv2d(width_out, width_out, 3, padding=1)),
        )
        self.skip_connection = nn.Identity() if width_in == width_out else nn.Conv2d(width_in, width_out, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        hidden = self.in_layers(x) + self.emb_layers(time)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(hidden)


class _SpatialTransformer(nn.Module):
    """One transformer block over the places of a feature map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, width, eps=1e-6)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([_TransformerBlock(width)])
        self.proj_out = _zeroed(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        places = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            places = block(places, context)
        return x + self.proj_out(places.transpose(1, 2).unflatten(2, (height, width)))


class _TransformerBlock(nn.Module):
    """Attention among the places, attention to the text, then a gated feed-forward network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn1 = _Attention(width, width)
        self.ff = _FeedForward(width)
        self.attn2 = _Attention(width, CONTEXT_WIDTH)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attn1(normed, normed)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class _Attention(nn.Module):
    def __init__(self, width: int, source_width: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(source_width, width, bias=False)
        self.to_v = nn.Linear(source_width, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        query, key, value = (
            projected.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for projected in (self.to_q(x), self.to_k(source), self.to_v(source))
        )
        return self.to_out(_attended(query, key, value).transpose(1, 2).flatten(2))


def _attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention over (B, heads, n, d)."""
    if query.device.type != "cpu" or not query.requires_grad:
        return F.scaled_dot_product_attention(query, key, value)
    # On the CPU the fused kernel's backward pass takes four times as long as these three steps.
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)
    return scores.softmax(-1) @ value


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        # The identity is the place of LDM's dropout, as in _ResBlock.
        self.net = nn.Sequential(_GatedGelu(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class _GatedGelu(nn.Module):
    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width_in, 2 * width_out)

    def forward(self, x: Tensor) -> Tensor:
        values, gate = self.proj(x).chunk(2, dim=-1)
        return values * F.gelu(gate)


class _Downsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class _Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, size: Sequence[int] | None) -> Tensor:
        # Never None in a U-Net: the finest level has no upsampling, and all others have skips left.
        assert size is not None
        return self.conv(F.interpolate(x, size=tuple(size), mode="nearest"))


def _zeroed(module: nn.Conv2d) -> nn.Conv2d:
    """The last layer of a residual branch, or of the network: adds nothing until it is trained."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
