"""What a thing done for speed pays: training steps without it, in turns with steps as they are."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

import cns_core.host.backend as host_backend
from cns_core.host.frozen_weights import frozen_weights
from cns_core.host.precision import Precision, fastest_precision
from cns_core.host.text import encode_prompts
from cns_core.text_features import TextFeatures

from .loops import Task, continual, random_latents
from .models import HostModel

_TURNS, _STEPS = 6, 3  # the first step of a turn is not counted


def left_out(loaded: HostModel, pixels: int) -> dict[str, float]:
    """Median seconds of a step as it is; as multiples of it, a step with one thing left out. Ratios are taken
    turn by turn: a machine that grows slower or faster does not count.
    """
    ways: dict[str, tuple[str, Callable[..., Any]]] = {
        "as_is": ("frozen_weights", frozen_weights),
        "cast_at_every_call": ("frozen_weights", _cast_at_every_call),
        "one_by_one": ("encode_prompts", _one_by_one),
        "text_in_float32": ("fastest_precision", _text_in_float32),
    }
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    task = Task(loaded, random_latents(pixels), 2, _STEPS)
    for turn in range(_TURNS):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds[name].append(statistics.median(_steps_with(*ways[name], task)[1:]))
    return {
        "as_is_s": statistics.median(seconds["as_is"]),
        **{
            f"{name}_ratio": _median_ratio(seconds[name], seconds["as_is"])
            for name in names
            if name != "as_is"
        },
    }


def _steps_with(name: str, stand_in: Callable[..., Any], task: Task) -> list[float]:
    theirs = getattr(host_backend, name)
    setattr(host_backend, name, stand_in)
    try:
        return continual("none")(task)
    finally:
        setattr(host_backend, name, theirs)


def _median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def _cast_at_every_call(dtypes: Mapping[nn.Module, Any]) -> AbstractContextManager[None]:
    return frozen_weights(dict.fromkeys(dtypes))


def _text_in_float32(unet_device: torch.device, text_device: torch.device) -> Precision:
    return replace(fastest_precision(unet_device, text_device), text=torch.float32)


def _one_by_one(clip: Any, prompts: Sequence[str], pooled: bool) -> TextFeatures:
    return TextFeatures.concatenated([encode_prompts(clip, [prompt], pooled) for prompt in prompts])
