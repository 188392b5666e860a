"""What a thing done for speed pays: training steps without it, in turns with steps as they are."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

import cns_core.host.backend as host_backend
from cns_core.backend import TextFeatures
from cns_core.host.frozen_weights import frozen_weights
from cns_core.host.text import encode_prompts

from .loops import Task, continual, random_latents
from .models import HostModel

_TURNS, _STEPS = 8, 3  # the first step of a turn is not counted


def left_out(loaded: HostModel, pixels: int) -> dict[str, float]:
    """Median seconds of a step as it is, and with each thing left out; the ratio is taken turn by turn, so
    that a machine that grows slower or faster does not count.
    """
    ways: dict[str, tuple[str, Callable[..., Any]]] = {
        "as_is": ("frozen_weights", frozen_weights),
        "cast_at_every_call": ("frozen_weights", _cast_at_every_call),
        "one_by_one": ("encode_prompts", _one_by_one),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(_TURNS):
        names = list(ways)
        for way in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds[way].append(_steps_with(*ways[way], Task(loaded, random_latents(pixels), 2, _STEPS)))
    return {
        "as_is_s": statistics.median(seconds["as_is"]),
        **{f"{way}_ratio": _median_ratio(seconds[way], seconds["as_is"]) for way in names if way != "as_is"},
    }


def _steps_with(name: str, stand_in: Callable[..., Any], task: Task) -> float:
    theirs = getattr(host_backend, name)
    setattr(host_backend, name, stand_in)
    try:
        return statistics.median(continual("none")(task)[1:])
    finally:
        setattr(host_backend, name, theirs)


def _median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def _cast_at_every_call(dtypes: Mapping[nn.Module, Any]) -> AbstractContextManager[None]:
    return frozen_weights(dict.fromkeys(dtypes))


def _one_by_one(clip: Any, prompts: Sequence[str], pooled: bool) -> TextFeatures:
    return TextFeatures.stack([encode_prompts(clip, [prompt], pooled) for prompt in prompts])
