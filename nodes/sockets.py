"""The pack's socket types, sockets made of settings, and the few schema features that older hosts lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comfy_api.latest import io

from ..cns_core.settings import Described, described

CATEGORY = "CNS"

# With the pack's prefix: "CONCEPT" and "MEMORY" are anybody's words, and packs that mean different things by
# them could be wired together.
ConceptSocket = io.Custom("CNS_CONCEPT")
NeuronsSocket = io.Custom("CNS_NEURONS")
MemorySocket = io.Custom("CNS_MEMORY")


def schema(**keywords: Any) -> io.Schema:
    """An `io.Schema` without the keywords that this host does not know yet (all of them cosmetic)."""
    known = io.Schema.__dataclass_fields__
    return io.Schema(category=CATEGORY, **{k: v for k, v in keywords.items() if k in known})


def advanced(socket: Any) -> Any:
    """Mark an input as rarely used; hosts that know the mark fold it away."""
    socket.extra_dict = {**(socket.extra_dict or {}), "advanced": True}
    return socket


def sockets_of(
    settings: type[Any],
    names: Sequence[str],
    *,
    prefix: str = "",
    optional: bool = False,
    ways: Mapping[str, type[Any]] | None = None,
) -> list[Any]:
    """Inputs for some settings of a class, in the order of `names`.

    prefix: of the tooltips; optional: saved graphs need not have them; ways: the settings of each way to
    learn, for the page, which switches off what another way has than the chosen one.
    """
    known = described(settings)
    sockets = [_socket(name, *known[name], prefix, optional) for name in names]
    for name, socket in zip(names, sockets, strict=True):
        if ways is not None:
            found = [way for way, its in ways.items() if name in described(its)]
            socket.extra_dict = {**(socket.extra_dict or {}), "for": found}
    return sockets


def chosen_of(settings: type[Any], values: Mapping[str, Any]) -> Any:
    """An instance of a class of settings from what a node was given; the rest of it is for other classes.
    ValueError for a value out of its range.
    """
    return settings(**{name: values[name] for name in described(settings) if name in values})


def _socket(name: str, default: Any, what: Described, prefix: str, optional: bool) -> Any:
    common: dict[str, Any] = {"default": default, "tooltip": prefix + what.help, "optional": optional}
    if what.choices:
        socket = io.Combo.Input(name, options=list(what.choices), **common)
    elif isinstance(default, str):
        socket = io.String.Input(name, multiline=True, **common)
    elif isinstance(default, bool):
        socket = io.Boolean.Input(name, **common)
    elif isinstance(default, int):
        # The editor would otherwise add a control that changes a seed after each run.
        control = {"control_after_generate": False} if name == "seed" else {}
        socket = io.Int.Input(name, min=int(what.low or 0), max=int(what.high or 0), **control, **common)
    else:
        round_to = None if what.digits is None else 10.0**-what.digits
        low, high = float(what.low or 0), float(what.high or 0)
        socket = io.Float.Input(name, min=low, max=high, step=what.step, round=round_to, **common)
    return advanced(socket) if what.rare else socket
