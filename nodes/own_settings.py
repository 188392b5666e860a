"""One node for several methods: a socket for each setting, whichever of them have it, with a value that
stands for the method's own. The page shows the settings of the chosen one alone (`web/method.js`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comfy_api.latest import io

from ..cns_core.settings import Described, described

OWN = "the method's own"  # value, of a setting that is a choice
OWN_NUMBER = -1

# By setting, in which methods it is, with its default and what it is there.
BySetting = dict[str, dict[str, tuple[Any, Described]]]


def settings_of(kinds: Mapping[str, Sequence[type[Any]]]) -> BySetting:
    """Of methods by name, each with its classes of settings."""
    found: BySetting = {}
    for method, classes in kinds.items():
        for kind in classes:
            for name, setting in described(kind).items():
                found.setdefault(name, {})[method] = setting
    return found


def for_methods(socket: Any, methods: Sequence[str]) -> Any:
    """Tell the page that a socket is a setting of these methods."""
    socket.extra_dict = {**(socket.extra_dict or {}), "of_methods": list(methods)}
    return socket


def socket_of_methods(name: str, by_method: Mapping[str, tuple[Any, Described]]) -> Any:
    """A setting of all the methods that have it. Each has a value of its own for it, until one is given."""
    default, what = next(iter(by_method.values()))
    common: dict[str, Any] = {"optional": True, "tooltip": _tooltip(by_method)}
    if what.choices or isinstance(default, bool):
        choices = [c for _, w in (by_method.values()) for c in w.choices] or ["yes", "no"]
        socket = io.Combo.Input(name, options=[OWN, *dict.fromkeys(choices)], default=OWN, **common)
    elif isinstance(default, str):
        socket = io.String.Input(name, default="", multiline=True, **common)
    else:
        high = max(w.high or 0 for _, w in by_method.values())
        if isinstance(default, int):
            # The editor would otherwise add a control that changes a seed after each run.
            common |= {"control_after_generate": False} if name == "seed" else {}
            socket = io.Int.Input(name, default=OWN_NUMBER, min=OWN_NUMBER, max=int(high), **common)
        else:
            digits = [w.digits for _, w in by_method.values()]
            round_to = None if None in digits else 10.0 ** -max(d for d in digits if d is not None)
            low, own = float(OWN_NUMBER), float(OWN_NUMBER)
            socket = io.Float.Input(
                name, default=own, min=low, max=float(high), step=what.step, round=round_to, **common
            )
    return for_methods(socket, list(by_method))


def _tooltip(by_method: Mapping[str, tuple[Any, Described]]) -> str:
    """What a setting is in each method, and the method's own value."""
    methods: dict[str, list[str]] = {}
    for method, (_, what) in by_method.items():
        methods.setdefault(what.help, []).append(method)
    told = [f"{', '.join(names)}: {help}" for help, names in methods.items()]
    own = ", ".join(f"{method} {_shown(default)}" for method, (default, _) in by_method.items())
    number = any(isinstance(d, int | float) and not isinstance(d, bool) for d, _ in by_method.values())
    return " ".join([*told, f"{OWN_NUMBER if number else OWN}: {own}."])


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return repr(value) if value == "" else f"{value:g}" if isinstance(value, float) else str(value)


def given_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of what a node was given, what does not stand for the method's own."""
    return {name: value for name, value in values.items() if not _is_own(value)}


def _is_own(value: Any) -> bool:
    return value in (OWN, "") or (not isinstance(value, str) and value == OWN_NUMBER)


def chosen_settings(kind: type[Any], given: Mapping[str, Any]) -> Any:
    """An instance of a class of settings from `given_of`; the rest of it is for other classes. ValueError for
    a value out of its range.
    """
    known = described(kind)
    yes_or_no = {name: given[name] == "yes" for name in known if given.get(name) in ("yes", "no")}
    return kind(**{name: value for name, value in {**given, **yes_or_no}.items() if name in known})


def told_settings(method: str, used: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """The settings as they are used, and which of those given are another method's."""
    lines = [f"{method}, by " + (", ".join(f"{n} {_shown(v)}" for n, v in used.items()) or "no settings")]
    if strange := sorted(set(given) - set(used)):
        lines.append(f"{', '.join(strange)}: of other methods, and not used by {method}")
    return lines
