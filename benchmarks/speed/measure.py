"""One figure, measured in this process, in the host."""

from __future__ import annotations

from typing import Any

from ..host import start_host

OVER_THE_FLOOR = {"over the floor": "cns", "over the floor, directions": "directions"}  # figure -> method


def measure(what: str, model: str, pixels: int, batch: int, steps: int) -> dict[str, Any]:
    """A record of one figure: what was measured on what, and its numbers."""
    start_host()
    import torch

    from .figures import FIGURES
    from .growth import GROWTH
    from .left_out import left_out
    from .loops import LOOPS, compute_dtype, measure_loop
    from .models import host_model
    from .over_the_floor import over_the_floor
    from .precision import against_float32

    with torch.inference_mode():
        loaded = host_model(model)
    if what in LOOPS:
        numbers = measure_loop(what, loaded, pixels, batch, steps)
    elif what in GROWTH:
        numbers = GROWTH[what](loaded, pixels)
    elif what in OVER_THE_FLOOR:
        numbers = over_the_floor(loaded, pixels, OVER_THE_FLOOR[what])
    elif what == "left out":
        numbers = left_out(loaded, pixels)
    elif what == "against fp32 on the CPU":
        numbers = against_float32(loaded, pixels, model)
    else:
        with torch.inference_mode():  # as the host runs nodes
            numbers = FIGURES[what](loaded, pixels, steps)
    return {
        "what": what,
        "model": model,
        "pixels": pixels,
        "batch": batch,
        "dtype": str(compute_dtype(loaded)).removeprefix("torch."),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{torch.get_num_threads()} CPU cores",
        "torch": torch.__version__,
        **numbers,
    }
