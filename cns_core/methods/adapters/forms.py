"""The forms of a small adapter beside a matrix: what its parameters are, and the product that is added.

Each is the host's own (`comfy/weight_adapter`), and LyCORIS's (2309.14859), without dropout: what is learned
here draws the same there. A form's product is always one of two factors as well, of some higher rank, so that
concepts are summed exactly however many there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

Shape = tuple[int, int]
Parameters = Mapping[str, Tensor]


class Form(Protocol):
    """One way to make a matrix `(out, width)` of few parameters."""

    name: str
    zero: str  # the parameter that starts from 0, and takes up the scale

    def shapes(self, shape: Shape, rank: int) -> dict[str, Shape]:
        """Of the parameters, by name."""
        ...

    def start(self, shape: Shape, rank: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Parameters whose product is 0, float32."""
        ...

    def factors(self, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """(up `(out, r)`, down `(r, width)`), whose product is what is added; differentiable."""
        ...


class LoraForm:
    """up @ down (2106.09685)."""

    name = "lora"
    zero = "up"

    def shapes(self, shape: Shape, rank: int) -> dict[str, Shape]:
        out, width = shape
        r = min(rank, out, width)
        return {"up": (out, r), "down": (r, width)}

    def start(self, shape: Shape, rank: int, generator: torch.Generator) -> dict[str, Tensor]:
        return _started(self.shapes(shape, rank), self.zero, generator)

    def factors(self, parameters: Parameters) -> tuple[Tensor, Tensor]:
        return parameters["up"], parameters["down"]


class LohaForm:
    """(w1_a @ w1_b) * (w2_a @ w2_b), entry by entry (FedPara, 2108.06098): rank r^2 for the price of 2 r."""

    name = "loha"
    zero = "w2_a"

    def shapes(self, shape: Shape, rank: int) -> dict[str, Shape]:
        out, width = shape
        r = min(rank, out, width)
        return {"w1_a": (out, r), "w1_b": (r, width), "w2_a": (out, r), "w2_b": (r, width)}

    def start(self, shape: Shape, rank: int, generator: torch.Generator) -> dict[str, Tensor]:
        return _started(self.shapes(shape, rank), self.zero, generator)

    def factors(self, parameters: Parameters) -> tuple[Tensor, Tensor]:
        # Row by row the product of the left factors, column by column that of the right ones.
        up = torch.einsum("or,os->ors", parameters["w1_a"], parameters["w2_a"]).flatten(1)
        down = torch.einsum("rw,sw->rsw", parameters["w1_b"], parameters["w2_b"]).flatten(0, 1)
        return up, down


class LokrForm:
    """w1 (x) (w2_a @ w2_b), the Kronecker product of a small matrix and a low-rank one."""

    name = "lokr"
    zero = "w2_a"
    _LARGEST = 8  # rows and columns of the small matrix, as in the host's form

    def shapes(self, shape: Shape, rank: int) -> dict[str, Shape]:
        (out, width), (a, b) = shape, (_divisor(side, self._LARGEST) for side in shape)
        r = min(rank, out // a, width // b)
        return {"w1": (a, b), "w2_a": (out // a, r), "w2_b": (r, width // b)}

    def start(self, shape: Shape, rank: int, generator: torch.Generator) -> dict[str, Tensor]:
        return _started(self.shapes(shape, rank), self.zero, generator)

    def factors(self, parameters: Parameters) -> tuple[Tensor, Tensor]:
        small, left, right = parameters["w1"], parameters["w2_a"], parameters["w2_b"]
        # w1 (x) AB = (w1 (x) A) (1 (x) B)
        return torch.kron(small, left), torch.kron(torch.eye(small.shape[1]).to(right), right)


def _started(shapes: Mapping[str, Shape], zero: str, generator: torch.Generator) -> dict[str, Tensor]:
    """Random parameters of the size that keeps what they are multiplied with, and one that is 0."""
    return {
        name: torch.zeros(shape)
        if name == zero
        else torch.randn(shape, generator=generator) / math.sqrt(shape[1])
        for name, shape in shapes.items()
    }


def _divisor(side: int, largest: int) -> int:
    return next(d for d in range(min(side, largest), 0, -1) if side % d == 0)
