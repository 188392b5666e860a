"""Where a concept lives, as a heat map and in words."""

from __future__ import annotations

from torch import Tensor

from ..localisation import ALL, EVERYWHERE, Localisation
from .heat_table import Cell, heat_table

_MEASURES = ("only here", "lost without")


def heat_map(found: Localisation) -> Tensor:
    """(1, H, W, 3): a row for each layer in the order of the U-Net; blue is nothing, yellow all of it."""
    parts = _parts(found)
    heads = [(part if len(parts) > 1 else "", what) for part in parts for what in _MEASURES]
    rows = [
        (label, [Cell(figure) for part in parts for figure in (of[part].only, of[part].lost)])
        for label, of in found.shares.items()
    ]
    note = "shares of what was learned besides the token; rows: layers in the order of the U-Net"
    return heat_table(f"Where {found.token} lives", note, heads, rows, _percent, ends=(0.0, 1.0))


def report(found: Localisation) -> str:
    """The same in figures: Markdown that reads well as plain text."""
    parts = _parts(found)
    layers = {label: of[ALL].only for label, of in found.shares.items() if label != EVERYWHERE}
    first = max(layers, key=lambda label: layers[label])
    lines = [
        f"the error on its own pictures is {found.class_word:.4f} under the class word, "
        f"{found.token_alone:.4f} with the token alone and {found.whole:.4f} with all that was learned: the "
        f"token alone goes {_percent(found.by_the_token())} of the way",
        f"of the rest, {_percent(layers[first])} is there with {first} alone, more than with any other layer",
        f"the figures are good to about {_percent(found.doubt())} (one standard error); more samples make "
        "them better",
    ]
    named = [f"{part}: {what}" if len(parts) > 1 else what for part in parts for what in _MEASURES]
    rows = [
        [label, *(_percent(figure) for part in parts for figure in (of[part].only, of[part].lost))]
        for label, of in found.shares.items()
    ]
    table = [["layer", *named], ["---"] * (1 + len(named)), *rows]
    return "\n".join([*(f"- {line}" for line in lines), "", *(f"| {' | '.join(row)} |" for row in table)])


def _parts(found: Localisation) -> list[str]:
    return list(next(iter(found.shares.values())))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
