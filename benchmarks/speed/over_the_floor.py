"""How much longer a training step takes than the bare forward and backward of the same U-Net."""

from __future__ import annotations

import statistics

from cns_core.staged import Stage
from cns_core.training import StepReport

from .loops import bare_pass, random_latents, timed, training_backend
from .models import HostModel
from .trainers import Task, trainer_for

_STEPS, _WARM_UP = 24, 4


def over_the_floor(loaded: HostModel, pixels: int, method: str) -> dict[str, float]:
    """Median seconds of `ContinualTrain`'s step by a method without prior and of the bare pass, their ratio's
    median and quartiles. Each step is followed by a bare pass, on the same weights and with the same memory
    in use: in processes of their own the same loop comes out further apart than what is asked for here.

    The weights stay patched and the change is switched off for the bare pass,
    so that the host still copies K/V (2 ms at SD 1.5's size).
    """
    task = Task(loaded, random_latents(pixels), 2, _STEPS + _WARM_UP)
    with training_backend(loaded) as (backend, vectors):
        trainer = trainer_for(task, backend, vectors, method, "none")
        with backend.weights_patched({}):
            floor = bare_pass(task, backend)
        pairs: list[tuple[float, float]] = []

        def on_step(report: StepReport) -> None:
            with trainer.weights.shown(Stage.UNTOUCHED):
                pairs.append((report.seconds, *timed(floor, 1)))

        trainer.run(on_step)
    counted = pairs[_WARM_UP:]
    low, middle, high = statistics.quantiles((step / bare for step, bare in counted), n=4)
    return {
        "step_s": statistics.median(step for step, _ in counted),
        "bare_s": statistics.median(bare for _, bare in counted),
        "over_ratio": middle,
        "over_low": low,
        "over_high": high,
    }
