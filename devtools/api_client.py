"""A client of ComfyUI's HTTP and WebSocket interface: queue a graph, wait for it, fetch what it made."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import requests
import websocket

from .errors import DevToolError

Graph = dict[str, dict[str, Any]]
Outputs = dict[str, dict[str, Any]]

_REQUEST_TIMEOUT = 60.0
_POLL_SECONDS = 5.0


class PromptFailed(DevToolError):
    """The host refused a graph, or one of its nodes failed.

    `node_id` and `node_class` are None where the host blames the graph as a whole; `interrupted` is True
    after a cancel.
    """

    def __init__(
        self,
        message: str,
        node_id: str | None = None,
        node_class: str | None = None,
        interrupted: bool = False,
        traceback: str = "",
    ) -> None:
        self.message = message
        self.node_id = node_id
        self.node_class = node_class
        self.interrupted = interrupted
        self.traceback = traceback
        where = f"node {node_id} ({node_class}): " if node_id is not None else ""
        super().__init__(f"{where}{message}{chr(10) if traceback else ''}{traceback}")


class ApiClient:
    """Talks to one host; use as a context manager or call `close()`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._client_id = uuid.uuid4().hex
        self._session = requests.Session()
        self._socket: websocket.WebSocket | None = None

    def __enter__(self) -> ApiClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the next call opens them again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._session.close()

    def get_json(self, path: str) -> Any:
        """The decoded answer to a GET, such as `/object_info/KSampler`."""
        answer = self._session.get(self.url + path, timeout=_REQUEST_TIMEOUT)
        answer.raise_for_status()
        return answer.json()

    def run(
        self,
        graph: Graph,
        timeout: float = 1200.0,
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> Outputs:
        """Queue `graph` (API format), wait until it is done and give back its outputs by node id.

        `on_progress(node_id, value, maximum)` is called for each progress message.
        Raises PromptFailed when the host refuses the graph, when a node fails, and after an interruption;
        TimeoutError after `timeout` seconds.
        """
        connection = self._connection()  # before queueing, or the first messages are missed
        prompt_id = self.queue(graph)
        deadline = time.monotonic() + timeout
        while True:
            if time.monotonic() > deadline:
                self.interrupt()
                raise TimeoutError(f"The graph was not done after {timeout:.0f} s; it has been interrupted.")
            connection.settimeout(_POLL_SECONDS)
            try:
                message = connection.recv()
            except websocket.WebSocketTimeoutException:
                entry = self.history(prompt_id)
                if entry is not None:  # finished, and its last message was lost
                    return _outputs_of(entry)
                continue
            if isinstance(message, bytes):
                continue  # a preview picture
            event = json.loads(message)
            data = event.get("data", {})
            if data.get("prompt_id") != prompt_id:
                continue
            if event["type"] == "progress" and on_progress is not None:
                on_progress(str(data.get("node")), int(data["value"]), int(data["max"]))
            elif event["type"] == "execution_error":
                raise _execution_error(data)
            elif event["type"] == "execution_interrupted":
                raise _interruption(data)
            elif event["type"] == "execution_success":
                return _outputs_of(self._finished_history(prompt_id, deadline))

    def queue(self, graph: Graph) -> str:
        """Queue `graph` without waiting; gives back its id. Raises PromptFailed when it is not valid."""
        answer = self._session.post(
            f"{self.url}/prompt",
            json={"prompt": graph, "client_id": self._client_id},
            timeout=_REQUEST_TIMEOUT,
        )
        if answer.status_code == 400:
            raise _validation_error(answer.json())
        answer.raise_for_status()
        body = answer.json()
        # The host runs the valid part of a half-valid graph; here half is a failure.
        if body.get("node_errors"):
            self.interrupt()
            raise _validation_error(body)
        return str(body["prompt_id"])

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """What the host keeps of a finished prompt, or None while it is not finished."""
        entry: dict[str, Any] | None = self.get_json(f"/history/{prompt_id}").get(prompt_id)
        return entry

    def view(self, image: dict[str, str]) -> bytes:
        """The file behind one entry of a node's `images` output."""
        parameters = {key: image[key] for key in ("filename", "subfolder", "type") if key in image}
        answer = self._session.get(f"{self.url}/view", params=parameters, timeout=_REQUEST_TIMEOUT)
        answer.raise_for_status()
        return answer.content

    def interrupt(self) -> None:
        """Cancel what runs now."""
        self._post("/interrupt", {})

    def clear(self, timeout: float = 120.0) -> None:
        """Drop what waits, cancel what runs, and wait until nothing does.

        Raises TimeoutError when something still runs after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        self._post("/queue", {"clear": True})
        while self.get_json("/queue")["queue_running"]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"The host still runs what was interrupted {timeout:.0f} s ago.")
            self.interrupt()
            time.sleep(0.2)

    def _post(self, path: str, body: dict[str, Any]) -> None:
        self._session.post(self.url + path, json=body, timeout=_REQUEST_TIMEOUT).raise_for_status()

    def _connection(self) -> websocket.WebSocket:
        if self._socket is None or not self._socket.connected:
            address = self.url.replace("http", "ws", 1) + f"/ws?clientId={self._client_id}"
            self._socket = websocket.create_connection(address, timeout=_REQUEST_TIMEOUT)
        return self._socket

    def _finished_history(self, prompt_id: str, deadline: float) -> dict[str, Any]:
        # The success message is sent a moment before the history has the entry.
        while (entry := self.history(prompt_id)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"The host reported success for {prompt_id} but has no history of it.")
            time.sleep(0.05)
        return entry


def _outputs_of(entry: dict[str, Any]) -> Outputs:
    for kind, data in entry.get("status", {}).get("messages", []):
        if kind == "execution_error":
            raise _execution_error(data)
        if kind == "execution_interrupted":
            raise _interruption(data)
    outputs: Outputs = entry["outputs"]
    return outputs


def _execution_error(data: dict[str, Any]) -> PromptFailed:
    return PromptFailed(
        f"{data.get('exception_type')}: {data.get('exception_message', '').strip()}",
        node_id=data.get("node_id"),
        node_class=data.get("node_type"),
        traceback="".join(data.get("traceback", [])),
    )


def _interruption(data: dict[str, Any]) -> PromptFailed:
    return PromptFailed("interrupted", data.get("node_id"), data.get("node_type"), interrupted=True)


def _validation_error(body: dict[str, Any]) -> PromptFailed:
    """The first node's complaints as the exception's fields, or the graph's own when no node is to blame."""
    for node_id, problem in body.get("node_errors", {}).items():
        lines = [f"{error['message']}: {error.get('details', '')}" for error in problem.get("errors", [])]
        return PromptFailed("; ".join(lines), node_id=node_id, node_class=problem.get("class_type"))
    error = body.get("error", {})
    text = f"{error.get('message')}: {error.get('details', '')}" if isinstance(error, dict) else str(error)
    return PromptFailed(text)
