"""The host's progress bar, preview picture, log line and Cancel button."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Any

import comfy.model_management as management
import comfy.utils
from PIL import Image
from torch import Tensor

from ..training import StepReport
from .live import LiveRun

_PREVIEW_PIXELS = 512
_LOG_EVERY = 50


class Progress:
    """Shows steps of one node.
    `step` and `phase` raise the host's own exception when the user pressed Cancel.

    live: what is told of each step to pages, too.
    """

    def __init__(self, steps: int, live: LiveRun | None = None) -> None:
        self._steps, self._done, self._live = steps, 0, live
        self._bar = comfy.utils.ProgressBar(steps)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._show(self._steps, self._steps, None)

    def step(self, report: StepReport, picture: Tensor | None) -> None:
        self._show(report.step, report.steps, picture)
        if self._live is not None:
            self._live.step(report, picture)
        if report.step % _LOG_EVERY == 0 or report.step == report.steps:
            losses = ", ".join(f"{name} {value:.3g}" for name, value in report.losses.items())
            norms = ", ".join(f"{name} {value:.2e}" for name, value in report.gradient_norms.items())
            logging.info(
                f"CNS step {report.step}/{report.steps}: {losses}; gradient norms {norms}; "
                f"{report.seconds:.2f} s"
            )
        management.throw_exception_if_processing_interrupted()

    def phase(self, done: int, total: int, picture: Tensor | None = None) -> None:
        """Preparations before step 1."""
        self._show(done, total, picture)
        management.throw_exception_if_processing_interrupted()

    def _show(self, done: int, total: int, picture: Tensor | None) -> None:
        if done < self._done:  # newer hosts show nothing that is behind what a bar has shown before
            self._bar = comfy.utils.ProgressBar(total)
        self._done = done
        self._bar.update_absolute(done, total, _as_preview(picture))


def _as_preview(picture: Tensor | None) -> Any:
    if picture is None:
        return None
    array = picture[0].mul(255).round().byte().cpu().numpy()
    return ("JPEG", Image.fromarray(array), _PREVIEW_PIXELS)
