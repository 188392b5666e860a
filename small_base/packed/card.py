"""The model card that lies beside a packed base."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..layout import BaseSize
from ..training.text_encoder import LAYERS, VOCABULARY
from ..training.unet import WIDTH

if TYPE_CHECKING:
    from .packing import Packed

_KEYS = {"figure", "value", "bar", "met"}


def read_figures(work: Path, size: BaseSize) -> list[dict[str, Any]] | None:
    """What `bench` last wrote for this size: "figure", "value", "bar" and "met" each; None: it never ran."""
    path = work / f"bench-{size.name}.json"
    if not path.is_file():
        return None
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        whole = isinstance(records, list) and all(record.keys() >= _KEYS for record in records)
    except (ValueError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(
            f"{path} is not what `bench` writes, a list of records with {', '.join(sorted(_KEYS))}: "
            "run `bench` again, or delete the file"
        )
    return records


def write_card(
    packed_file: Path, packed: Packed, checkpoint: Mapping[str, Tensor], figures: list[dict[str, Any]] | None
) -> Path:
    """Write the Markdown file beside `packed_file` and give back its path.

    Args:
        packed_file: as it lies on disk.
        packed: what it holds.
        checkpoint: what it expands to.
        figures: of `read_figures`.
    """
    path = packed_file.with_name(f"base-{packed.size.name}.md")
    path.write_text(_card(packed_file, packed, checkpoint, figures), encoding="utf-8")
    return path


def _card(
    packed_file: Path, packed: Packed, checkpoint: Mapping[str, Tensor], figures: list[dict[str, Any]] | None
) -> str:
    name, side = f"base-{packed.size.name}", packed.size.picture
    return f"""# {name}: a small base model of emoji scenes

A text-to-image model in SD 1.5's layout that draws {side} x {side} pictures of one emoji or two, on a plain
colour or in a simple place: "a photo of a red apple on the beach". It is there for one purpose: to teach it
new concepts, quickly and with figures, in this project's measurements.

    python3 dev.py base expand {packed_file.name} --out {name}.safetensors

makes a checkpoint for ComfyUI's `models/checkpoints`, which takes it for an SD 1.5. Draw {side} x {side}
pixels.

## The file

{_table(["", ""], _file_rows(packed_file, packed, checkpoint))}

The second digest is over names, types, shapes and bytes of all tensors, in order; `expand` checks it. Every
machine makes the same tensors of this file.

## The networks

{_table(["", "Layout", "Parameters", "Training steps"], _network_rows(packed))}

It predicts noise (eps), on SD 1.5's schedule. The words that were not trained have pseudo-random rows, and
the layers that were not trained change nothing.

## How well it draws

{_judged(figures)}

## Data and licences

It was trained only on pictures composed of emoji drawings, and on captions made of their names; no photos,
and no weights of other models. The drawings are Google's Noto (Apache 2.0), Twemoji (CC BY 4.0) and
Microsoft's Fluent 3D (MIT); the names come from Emojibase and Unicode CLDR. `small_base/CREDITS.md` says
who made them and under which licences: who passes this file on passes those on too.

What `concepts.json` names (objects, places and styles, all of OpenMoji's drawings among them) was held out:
it never saw any of it, and this is what it can be taught.

## What it cannot do

It knows the emoji, colours and places of its world and nothing else: no people one knows, no photos, no
writing. Words outside of its captions mean nothing to it. It was trained at {side} x {side} pixels, and other
sizes fall apart. What holds on it need not hold on a full SD 1.5.
"""


def _file_rows(packed_file: Path, packed: Packed, checkpoint: Mapping[str, Tensor]) -> list[list[str]]:
    expanded = sum(tensor.nbytes for tensor in checkpoint.values()) / 1e6
    megabytes = packed_file.stat().st_size / 1e6
    return [
        [
            "Packed",
            f"`{packed_file.name}`, {megabytes:.1f} MB; "
            f"large matrices at {packed.bits} bits a weight, the rest fp16",
        ],
        ["Its sha256", f"`{hashlib.sha256(packed_file.read_bytes()).hexdigest()}`"],
        ["Expanded", f"{len(checkpoint)} tensors, {expanded:.0f} MB: U-Net and text encoder fp16, VAE fp32"],
        ["sha256 of the expanded tensors", f"`{packed.sha256}`"],
    ]


def _network_rows(packed: Packed) -> list[list[str]]:
    widths = ", ".join(str(WIDTH * factor) for factor in packed.size.channel_mult)
    words = f"{len(packed.used_ids)} of {VOCABULARY} words"
    rows = (
        ("U-Net", f"SD 1.5's modules and names; levels of width {widths}", "unet", "unet"),
        (
            "Text encoder",
            f"CLIP-L, of it {packed.size.text_layers} of {LAYERS} layers and {words}",
            "text",
            "clip",
        ),
        ("VAE", "TAESD's; a latent place of four channels is eight pixels a side", "vae", "vae"),
    )
    return [
        [
            network,
            layout,
            f"{sum(tensor.numel() for tensor in packed.states[part].values()) / 1e6:.1f} M",
            str(packed.steps[tool]),
        ]
        for network, layout, part, tool in rows
    ]


def _judged(figures: list[dict[str, Any]] | None) -> str:
    if figures is None:
        return "It has not been judged: `bench` had not run when it was packed."
    rows = [
        [
            str(record["figure"]),
            _value(record["value"], record),
            _value(record["bar"], record),
            "" if record["bar"] is None else "yes" if record["met"] else "no",
        ]
        for record in figures
    ]
    return _table(["Figure", "Value", "Bar", "Met"], rows)


def _value(value: Any, record: Mapping[str, Any]) -> str:
    if value is None:
        return ""
    number = f"{value:.1f}" if isinstance(value, float) else str(value)
    return f"{number} {record.get('unit', '')}".rstrip()


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])
