"""What is asked of the pack, and whether a run met it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FLOOR, OURS, NATIVE = "bare forward and backward", "ContinualTrain, no prior", "TrainLoraNode"
TWENTIETH = "ContinualTrain, no prior, concept 20"

Records = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Bar:
    """One figure of a run, and the most that it may be. `only`: the model it is asked of; empty means all.
    gpu: asked of runs on a GPU alone.

    noise: how far two measurements of the same thing were apart in this run, where equality is asked.
    """

    what: str
    of: Callable[[Records], float]
    most: float
    only: str = ""
    gpu: bool = False
    noise: Callable[[Records], float] = lambda records: 0.0


@dataclass(frozen=True)
class Verdict:
    """A bar and what a run reached."""

    what: str
    found: float
    most: float
    met: bool


def _ratio(above: str, below: str, key: str = "median_s") -> Callable[[Records], float]:
    return lambda records: records[above][key] / records[below][key]


def _over_the_floor(records: Records) -> float:
    """As measured in turns where that was done: processes of their own are too far apart for a tenth."""
    if in_turns := records.get("over the floor"):
        return in_turns["over_ratio"]
    return _ratio(OURS, FLOOR)(records)


def _figure(what: str, key: str) -> Callable[[Records], float]:
    return lambda records: records[what][key]


def _reading(what: str) -> Callable[[Records], float]:
    return lambda records: records[what]["load_peak_mb"] / records[what]["values_mb"]


def _after(records: Records, steps: int) -> Mapping[str, float]:
    return {point["steps"]: point for point in records["steps"]["points"]}[steps]


BARS = (
    Bar("training step without prior / bare forward and backward", _over_the_floor, 1.10),
    Bar(
        "training step by directions / bare forward and backward",
        _figure("over the floor, directions", "over_ratio"),
        1.05,
        "sd15",
    ),
    Bar("training step without prior / TrainLoraNode", _ratio(OURS, NATIVE), 0.75),
    Bar("training step of concept 20 / concept 1", _ratio(TWENTIETH, OURS), 1.05),
    Bar("training memory of concept 20 / concept 1", _ratio(TWENTIETH, OURS, "peak_mb"), 1.05),
    Bar("bytes of optimizer and delta per entry", _figure("state", "bytes_per_entry"), 16.0),
    Bar(
        "drawing step with 20 concepts / plain model",
        _figure("drawing", "ratio"),
        1.0,
        noise=lambda records: abs(records["drawing"]["ratio_of_a_clone"] - 1),
    ),
    Bar("seconds to apply 20 concepts", _figure("drawing", "apply_s"), 1.0, "sd15"),
    Bar("seconds to apply 20 concepts", _figure("drawing", "apply_s"), 2.0, "sdxl"),
    Bar("seconds to apply 20 concepts by directions", _figure("drawing, directions", "apply_s"), 2.0, "sdxl"),
    Bar("MB of file per concept", _figure("keeping", "mb_a_concept"), 3.2, "sd15"),
    Bar("MB of file per concept", _figure("keeping", "mb_a_concept"), 60.0, "sdxl"),
    Bar("MB of file per concept by directions", _figure("keeping, directions", "mb_a_concept"), 0.6, "sd15"),
    Bar("MB of file per concept by directions", _figure("keeping, directions", "mb_a_concept"), 4.0, "sdxl"),
    Bar("seconds to read 20 concepts", _figure("keeping", "load_s"), 1.0, "sdxl"),
    Bar("seconds to read 20 concepts by directions", _figure("keeping, directions", "load_s"), 1.0, "sdxl"),
    Bar("memory of reading 20 concepts / their values", _reading("keeping"), 2.0, "sdxl"),
    Bar("the same by directions", _reading("keeping, directions"), 2.0, "sdxl"),
    Bar("seconds to select, besides encoding", _figure("selecting", "selection_s"), 5.0, "sd15"),
    Bar("seconds the pack adds to the host's start", _figure("starting", "import_s"), 0.1),
    Bar("seconds for 500 steps", lambda records: _after(records, 500)["so_far_s"], 40.0, "sd15", gpu=True),
    Bar(
        "GB while training", lambda records: records["steps"]["peak_in_all_mb"] / 1024, 8.0, "sd15", gpu=True
    ),
)


def held_against(records: Sequence[Mapping[str, Any]], model: str) -> list[Verdict]:
    """The bars that these records of one model can tell."""
    by_name = {record["what"]: record for record in records if record["model"] == model}
    on_gpu = not any("CPU" in record["device"] for record in by_name.values())
    found = []
    for bar in BARS:
        try:
            if bar.only in ("", model) and (on_gpu or not bar.gpu):
                value = bar.of(by_name)
                found.append(Verdict(bar.what, value, bar.most, value <= bar.most + bar.noise(by_name)))
        except KeyError:
            continue  # a run of some figures alone
    return found
