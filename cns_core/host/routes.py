"""The pack's routes, all below `/cns/`, for its pages."""

from __future__ import annotations

from . import library_routes, live, server


def register() -> None:
    """Add them to the host's server, before it starts to listen; nothing where the host is none."""
    if (host := server.running()) is not None:
        live.add_routes(host.routes)
        library_routes.add_routes(host.routes)
