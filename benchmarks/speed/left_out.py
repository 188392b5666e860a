"""What a thing done for speed pays: training steps without it, in turns with steps as they are."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cns_core.host.backend import HostBackend
from cns_core.text_features import TextFeatures

from .loops import Loop, Task, learning, random_latents, training_backend
from .models import HostModel

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
            f"{name}_ratio": _median_ratio(seconds[name], seconds["as_is"])
            for name in names
            if name != "as_is"
        },
    }


class _OneByOne(HostBackend):
    """Encodes the captions of a batch one after another."""

    def encode(self, prompts: Sequence[str], token_vectors: Mapping[str, Tensor] | None) -> TextFeatures:
        encode = super().encode
        return TextFeatures.concatenated([encode([prompt], token_vectors) for prompt in prompts])


def _median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))
