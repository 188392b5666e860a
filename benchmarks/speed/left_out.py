"""What a thing done for speed pays: training steps without it, in turns with steps as they are."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from cns_core.host.backend import HostBackend
from cns_core.method import WeightFunction
from cns_core.text_features import TextFeatures

from .loops import Loop, learning, random_latents, training_backend
from .models import HostModel
from .trainers import Task

_AGAINST = {"in_the_weights": "directions"}  # what a way is a multiple of, other than a step of CNS
_TURNS, _STEPS = 6, 3  # the first step of a turn is not counted


def left_out(loaded: HostModel, pixels: int) -> dict[str, float]:
    """Median seconds of a step as it is; as multiples of it, a step with one thing left out. Ratios are taken
    turn by turn: a machine that grows slower or faster does not count.
    """
    with training_backend(loaded) as (backend, _):
        text_in_float32 = replace(backend.precision, text=torch.float32)
    ways: dict[str, Loop] = {
        "as_is": learning(),
        "one_by_one": learning(backend=_OneByOne),
        "text_in_float32": learning(precision=text_in_float32),
        "directions": learning("directions"),
        "in_the_weights": learning("directions", backend=_InTheWeights),
    }
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    task = Task(loaded, random_latents(pixels), 2, _STEPS)
    for turn in range(_TURNS):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds[name].append(statistics.median(ways[name](task)[1:]))
    return {
        "as_is_s": statistics.median(seconds["as_is"]),
        **{
            f"{name}_ratio": _median_ratio(seconds[name], seconds[_AGAINST.get(name, "as_is")])
            for name in names
            if name != "as_is"
        },
    }


class _OneByOne(HostBackend):
    """Encodes the captions of a batch one after another."""

    def encode(self, prompts: Sequence[str], token_vectors: Mapping[str, Tensor] | None) -> TextFeatures:
        encode = super().encode
        return TextFeatures.concatenated([encode([prompt], token_vectors) for prompt in prompts])


class _InTheWeights(HostBackend):
    """Adds a product to the weight, where it could be added to what the projection puts out."""

    def weights_patched(self, functions: Mapping[str, WeightFunction]) -> AbstractContextManager[None]:
        whole = {name: partial(_call, function) for name, function in functions.items()}
        return super().weights_patched(whole)


def _call(function: WeightFunction, weight: Tensor) -> Tensor:
    return function(weight)


def _median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))
