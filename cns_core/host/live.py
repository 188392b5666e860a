"""A training as pages watch it: pushed to those that are open, told to those that are opened later; and the
wish, from a page, that it should end now and keep what it has learned.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import comfy.model_management as management
from comfy_execution.utils import get_executing_context
from torch import Tensor

from ..concept import Concept
from ..curves import thinned
from ..memory import LearnedConcept
from ..thumbnails import data_url, jpeg_of
from ..training import StepReport
from . import server

PROGRESS = "cns.progress"  # the name of the message
_EVERY = 0.4  # seconds between two messages, at least
_POINTS = 160  # of each loss
_PICTURES, _PICTURE_SIDE, _PREVIEW_SIDE = 4, 96, 256
_PREVIEW_BYTES = 32 * 1024

Send = Callable[[Mapping[str, Any]], None]

_RUNNING: dict[tuple[str, str], LiveRun] = {}
_LOCK = threading.Lock()


class LiveRun:
    """One training, from its preparations to its end.

    prompt_id, node: what the host runs; both are empty where something else calls.
    """

    def __init__(self, prompt_id: str, node: str, concept: Concept, steps: int, send: Send) -> None:
        self._send, self._sent = send, 0.0
        self._stop = threading.Event()
        self._guard = threading.RLock()  # pages ask from other threads than the one that trains
        self._losses: dict[str, list[float]] = {}
        self._first: tuple[int, float] | None = None  # a step, and when it was done
        self._state: dict[str, Any] = {
            "prompt_id": prompt_id,
            "node": node,
            "name": concept.name,
            "token": concept.token,
            "status": "preparing",
            "step": 0,
            "steps": steps,
            "resumed": 0,
            "seconds_left": None,
        }
        few = concept.images[:_PICTURES]
        self._pictures = {"pictures": [data_url(jpeg_of(i.pixels, _PICTURE_SIDE)) for i in few]}
        self._preview: dict[str, str] = {}

    def state(self) -> dict[str, Any]:
        """All that a page needs to show it."""
        with self._guard:
            return {**self._told(), **self._pictures, **self._preview}

    def begin(self) -> None:
        """It is there, and prepares."""
        self._push(self._pictures)

    def resumed(self, step: int, losses: Mapping[str, list[float]]) -> None:
        """It goes on where an earlier run of the same was stopped."""
        with self._guard:
            self._losses = {name: list(values) for name, values in losses.items()}
            self._state |= {"resumed": step, "step": step}
            self._push()

    def step(self, report: StepReport, picture: Tensor | None) -> None:
        """A step is done.

        picture: a preview `(1, H, W, 3)`, where one was drawn.
        """
        now = time.monotonic()
        if self._first is None:
            self._first = (report.step, now)
        first, begun = self._first
        with self._guard:
            for name, value in report.losses.items():
                self._losses.setdefault(name, []).append(value)
            if report.step > first:
                rest = report.steps - report.step
                self._state["seconds_left"] = round(rest * (now - begun) / (report.step - first), 1)
            self._state |= {"step": report.step, "status": "learning"}
            if picture is not None:
                self._preview = {"preview": data_url(jpeg_of(picture[0], _PREVIEW_SIDE, _PREVIEW_BYTES))}
                self._push(self._preview)
            elif now - self._sent >= _EVERY:
                self._push()

    def kept_before(self, learned: LearnedConcept) -> None:
        """Nothing is to be done: its result was on disk."""
        with self._guard:
            self._losses = {name: values.tolist() for name, values in learned.losses.items()}
            done = max(map(len, self._losses.values()), default=0)
            self._state |= {"step": done, "status": "kept"}

    def ask_to_stop(self) -> None:
        with self._guard:
            self._stop.set()
            self._state["stopping"] = True
            self._push()

    def stop_asked(self) -> bool:
        """Whether it should end after the step that is under way, as if that were its last."""
        return self._stop.is_set()

    def whole(self) -> bool:
        """Whether the last step is done."""
        return bool(self._state["step"] == self._state["steps"])

    def end(self, status: str) -> None:
        """The last message."""
        with self._guard:
            if self._state["status"] != "kept":
                self._state["status"] = status
            self._state["seconds_left"] = None
            self._push()

    def _told(self) -> dict[str, Any]:
        return {**self._state, "losses": thinned(self._losses, _POINTS).as_json()}

    def _push(self, more: Mapping[str, Any] | None = None) -> None:
        self._sent = time.monotonic()
        self._send({**self._told(), **(more or {})})


@contextmanager
def watched(concept: Concept, steps: int) -> Iterator[LiveRun]:
    """The training that the host's present node is."""
    context = get_executing_context()
    where = ("", "") if context is None else (str(context.prompt_id), str(context.node_id))
    run = LiveRun(*where, concept, steps, lambda told: server.push(PROGRESS, told))
    with _LOCK:
        _RUNNING[where] = run
    status = "failed"
    try:
        run.begin()
        yield run
        status = "finished" if run.whole() else "stopped"
    except management.InterruptProcessingException:
        status = "cancelled"
        raise
    finally:
        with _LOCK:
            _RUNNING.pop(where, None)
        run.end(status)


def states() -> list[dict[str, Any]]:
    """Those that run now."""
    with _LOCK:
        runs = list(_RUNNING.values())
    return [run.state() for run in runs]


def stop(prompt_id: str, node: str) -> None:
    """Ask a training to end after the step that is under way. GoneError where it does not run (any more)."""
    with _LOCK:
        run = _RUNNING.get((prompt_id, node))
    if run is None:
        raise server.GoneError(
            "This training is not running any more, or not yet, so there is nothing to stop."
        )
    run.ask_to_stop()


def add_routes(routes: Any) -> None:
    """`GET /cns/live`, `POST /cns/stop`."""

    def asked_to_stop(values: server.Values) -> dict[str, bool]:
        stop(server.text(values, "prompt_id"), server.text(values, "node"))
        return {"stopping": True}

    routes.get("/cns/live")(server.asked(lambda _: {"runs": states()}))
    routes.post("/cns/stop")(server.posted(asked_to_stop))
