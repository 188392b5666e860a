"""The library's routes. What changes anything is a POST of JSON; `server.py` says why."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from . import library
from .server import Values, asked, posted, text


def add_routes(routes: Any) -> None:
    """`GET /cns/library`, `/concept`, `/thumbnail`; `POST /cns/library/rename`, `/trash`, `/restore`."""
    routes.get("/cns/library")(asked(_library))
    routes.get("/cns/library/concept")(asked(_concept))
    routes.get("/cns/library/thumbnail")(asked(_thumbnail))
    routes.post("/cns/library/rename")(posted(_rename))
    routes.post("/cns/library/trash")(posted(_trash))
    routes.post("/cns/library/restore")(posted(_restore))


def _library(_: Values) -> dict[str, Any]:
    return {"files": library.listed(), "trash": library.trashed()}


def _concept(values: Values) -> dict[str, Any]:
    return library.concept(text(values, "file"), _number(values))


def _thumbnail(values: Values) -> web.Response:
    content = library.thumbnail(text(values, "file"), _number(values))
    if not content:
        raise ValueError("This concept has no thumbnail.")
    # The address names the file's version, so the same address always shows the same.
    headers = {"Cache-Control": "private, max-age=86400", "X-Content-Type-Options": "nosniff"}
    return web.Response(body=content, content_type="image/jpeg", headers=headers)


def _rename(values: Values) -> dict[str, str]:
    return {"file": library.rename(text(values, "file"), text(values, "name"))}


def _trash(values: Values) -> dict[str, str]:
    return {"name": library.trash(text(values, "file"))}


def _restore(values: Values) -> dict[str, str]:
    return {"file": library.restore(text(values, "name"))}


def _number(values: Values) -> int:
    number = text(values, "concept")
    if not (number.isascii() and number.isdigit() and len(number) < 7):
        raise ValueError(f"concept is {number[:60]!r}; expected a number, counted from 0.")
    return int(number)
