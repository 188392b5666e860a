"""Which model something belongs to, whatever the precision in which the model happens to be held.

A host holds one file in float32 here, in bfloat16 or eight bits there, so that no hash over the weights would
stay. A few entries of each weight are kept instead, each with how far it may have been rounded: two holdings
are of one model when for every entry there is a number that both may have been rounded from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from .projections import ProjectionLayout, flat_weights

ROW = 8  # entries that are taken of a weight at once
_LEAST = -64  # log2 of what is nothing beside any weight


@dataclass(frozen=True, eq=False)
class Sample:
    """A few entries of each weight of a model, `(rows, 8)`, each row of one weight.

    values: float16; rounding: int8, log2 of half the distance between the numbers around each value, in the
    dtype in which it is held or in float16, whichever are farther apart.
    """

    values: Tensor
    rounding: Tensor

    NAMES: ClassVar = ("values", "rounding")

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor]) -> Sample:
        """From what a file keeps of it. ValueError for other tensors than `tensors` gives."""
        if set(tensors) != set(cls.NAMES):
            raise ValueError(
                f"the sample of the base model has {sorted(tensors)}; expected {list(cls.NAMES)}"
            )
        values, rounding = (tensors[name] for name in cls.NAMES)
        fit = values.ndim == 2 and values.shape[1] == ROW and values.shape == rounding.shape
        if not fit or (values.dtype, rounding.dtype) != (torch.float16, torch.int8):
            raise ValueError(
                f"the sample of the base model is {values.dtype} {list(values.shape)} and {rounding.dtype} "
                f"{list(rounding.shape)}; expected float16 and int8 [any, {ROW}]"
            )
        if not bool(torch.isfinite(values).all()):
            raise ValueError("some of the sample of the base model are not finite")
        return cls(values, rounding)

    def tensors(self) -> dict[str, Tensor]:
        """What a file keeps of it."""
        return {"values": self.values, "rounding": self.rounding}

    def agrees(self, other: Sample) -> bool:
        """Whether every entry of both may come from one number."""
        if self.values.shape != other.values.shape:
            return False
        own, others = self.rounding.float().exp2(), other.rounding.float().exp2()
        # Rounded alike, they are equal or come from two numbers.
        allowed = torch.where(self.rounding == other.rounding, 0.0, own + others)
        return bool(((self.values.float() - other.values.float()).abs() <= allowed).all())

    def distance(self, other: Sample) -> float:
        """How far two models of one layout are apart: the root of the mean over rows of
        ||a - b||^2 / ((||a||^2 + ||b||^2) / 2). About 1.4 for models that have nothing to do with each other,
        infinite for other layouts.
        """
        if self.values.shape != other.values.shape:
            return float("inf")
        a, b = self.values.double(), other.values.double()
        size = (a.square() + b.square()).sum(1) / 2
        squares = (a - b).square().sum(1) / size.where(size > 0, torch.ones_like(size))
        return float(squares.mean().sqrt())

    def digest(self) -> str:
        """sha256 over the values."""
        return hashlib.sha256(self.values.numpy().tobytes()).hexdigest()


def sample_of(weights: Iterable[tuple[Tensor, torch.dtype, int]]) -> Sample:
    """Entries at places that depend on a weight's size alone.

    weights: each as it is computed with, the dtype in which it is held, and how many rows of it are taken.
    """
    values, rounding = [], []
    for weight, held, rows in weights:
        places = _places(weight.numel(), rows).to(weight.device)
        taken = weight.detach().reshape(-1)[places].to("cpu", torch.float16).reshape(rows, ROW)
        values.append(taken)
        rounding.append(torch.maximum(_half_step(taken, held), _half_step(taken, torch.float16)))
    return Sample(torch.cat(values), torch.cat(rounding))


@lru_cache(maxsize=4096)
def _places(entries: int, rows: int) -> Tensor:
    # The legacy generator is the one whose numbers NumPy promises never to change.
    return torch.from_numpy(np.random.RandomState(0).randint(0, entries, rows * ROW, dtype=np.int64))


def _half_step(values: Tensor, dtype: torch.dtype) -> Tensor:
    """int8, log2 of half the distance between the numbers of a dtype around each value."""
    about = torch.finfo(dtype)
    exponent = values.float().abs().frexp().exponent - 1
    smallest = int(np.log2(about.smallest_normal))
    exponent = exponent.where(values != 0, smallest).clamp(min=smallest)
    return (exponent + int(np.log2(about.eps)) - 1).clamp(min=_LEAST).to(torch.int8)


@dataclass(frozen=True, eq=False)
class ModelIdentity:
    """Which base model something belongs to.

    family: `SD1`, `SD2`, `SDXL`; fingerprint: sha256 over its projections and token tables; sample: of all
    its weights, None where that is not known (files of before).
    """

    family: str
    fingerprint: str
    sample: Sample | None = None

    def __str__(self) -> str:
        return f"{self.family} model {self.fingerprint[:12]}"

    def same_as(self, other: ModelIdentity) -> bool:
        """Whether both are of one model, in whatever precision it is held."""
        if self.family != other.family:
            return False
        if self.sample is None or other.sample is None:
            return self.fingerprint == other.fingerprint
        if self.fingerprint != other.fingerprint and torch.equal(self.sample.rounding, other.sample.rounding):
            return False
        return self.sample.agrees(other.sample)

    def distance(self, other: ModelIdentity) -> float:
        """See `Sample.distance`; infinite where it is not known."""
        if self.family != other.family or self.sample is None or other.sample is None:
            return float("inf")
        return self.sample.distance(other.sample)

    def told_apart(self, other: ModelIdentity) -> str:
        """How far apart both are, in words that go after their names; empty where it is not known."""
        distance = self.distance(other)
        return "" if distance == float("inf") else f" (their weights are {100 * distance:.2g} % apart)"


def fingerprint(
    layout: ProjectionLayout, weights: Mapping[str, Tensor], token_tables: Mapping[str, Tensor]
) -> str:
    """sha256 over all K/V weights and token tables, each cast to float16, so that whether they are held in it
    or in float32 does not matter.
    """
    digest = hashlib.sha256(repr(layout).encode())
    for _, weight in flat_weights(weights, layout):
        digest.update(_half_bytes(weight))
    for name in sorted(token_tables):
        digest.update(name.encode())
        digest.update(_half_bytes(token_tables[name]))
    return digest.hexdigest()


def _half_bytes(tensor: Tensor) -> memoryview:
    return memoryview(np.ascontiguousarray(tensor.detach().to("cpu", torch.float16).numpy())).cast("B")
