"""The host's web server, where this process is one: messages to pages, and routes that speak JSON.

Whatever changes something is a POST of JSON: a form or script of another web site cannot send that without
the browser asking this server first.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from aiohttp import web

from ..values import line_of_text, shown

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Values = Mapping[str, Any]

_MAX_BODY = 64 * 1024  # bytes
_MAX_TEXT = 1024  # characters of a value


class GoneError(ValueError):
    """What was asked for is not there any more."""


class _NotJsonError(ValueError):
    """A body of another kind than JSON."""


def running() -> Any | None:
    """The host's `PromptServer`; None where the host is no server."""
    # Not imported: where nothing has done so, nobody could connect either.
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def push(event: str, data: Mapping[str, Any]) -> None:
    """Send a message to every page that is open."""
    if (server := running()) is not None:
        server.send_sync(event, dict(data))


def text(values: Values, name: str) -> str:
    """A value of a request that is one line of text. ValueError otherwise."""
    if name not in values:
        raise ValueError(f"The request lacks {name!r}; it has {shown(sorted(values), 200)}.")
    return line_of_text(values[name], name, _MAX_TEXT)


def asked(answer: Callable[[Values], Any]) -> Handler:
    """A GET: the answer, as JSON, to what stands after the question mark."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await _answered(partial(answer, dict(request.query)))

    return handle


def posted(answer: Callable[[Values], Any]) -> Handler:
    """A POST of a JSON object: the answer to it, as JSON."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            values = await _body(request)
        except _NotJsonError as error:
            return _error(error, 415)
        except ValueError as error:
            return _error(error, 400)
        return await _answered(partial(answer, values))

    return handle


async def _answered(work: Callable[[], Any]) -> web.StreamResponse:
    """What comes of the work, done beside the event loop; its errors as `{"error": text}`."""
    try:
        found = await asyncio.get_running_loop().run_in_executor(None, work)
    except GoneError as error:
        return _error(error, 409)
    except ValueError as error:
        return _error(error, 400)
    except OSError as error:  # the disk is full, or not writable
        logging.warning(f"CNS: {error}")
        return _error(error, 500)
    return found if isinstance(found, web.StreamResponse) else web.json_response(found)


async def _body(request: web.Request) -> dict[str, Any]:
    if request.content_type != "application/json":
        raise _NotJsonError(f"The request's body is {request.content_type}; expected application/json.")
    content = b""
    while piece := await request.content.readany():
        content += piece
        if len(content) > _MAX_BODY:
            raise ValueError(f"The request is too long; expected at most {_MAX_BODY:,} bytes.")
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"The request is no JSON: {error}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"The request is {shown(values)}; expected an object.")
    return values


def _error(error: Exception, status: int) -> web.Response:
    return web.json_response({"error": str(error)}, status=status)
