"""`bench places`: how it ranks layers, sums up and learns in some of them, without a model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks.quality import places
from benchmarks.quality.some_layers import SomeLayers
from cns_core.localisation import ALL, EVERYWHERE, KEYS, VALUES, Localisation, Share
from cns_core.methods import METHODS
from cns_core.projections import ProjectionLayout

LAYERS = {"input_blocks.1.1": "down 0.0", "middle_block.1": "middle", "output_blocks.0.1": "up 0.0"}
NAMES = tuple(f"{layer}.transformer_blocks.0.attn2.to_{which}" for layer in LAYERS for which in "kv")
LAYOUT = ProjectionLayout(NAMES, ((4, 6),) * 6)


def found(*only: float) -> Localisation:
    shares = {
        label: dict.fromkeys((ALL, KEYS, VALUES), Share(o, o / 2, 0.01))
        for label, o in zip((*LAYERS.values(), EVERYWHERE), (*only, 1.0), strict=True)
    }
    return Localisation("<a>", 0.3, 0.2, 0.1, shares)


def record(concept: str, seed: int, *only: float) -> dict[str, Any]:
    learned = {"fit": 0.1 + seed, "drift": 0.02, "bytes": 2048, "layers": ["middle"]}
    return {
        **{"concept": concept, "method": "directions", "seed": seed},
        **places.as_record(found(*only)),
        "learned": {places.ALL_LAYERS: learned},
    }


def test_the_layers_that_carry_most_are_one_half_in_the_order_of_the_u_net() -> None:
    halves = places.halves(found(0.2, 0.7, 0.4))
    assert halves == {places.CARRYING: ["middle"], places.OTHERS: ["down 0.0", "up 0.0"]}


def test_figures_are_means_over_seeds(tmp_path: Path) -> None:
    records = [record("a", 0, 0.2, 0.7, 0.4), record("a", 1, 0.4, 0.9, 0.4), record("b", 0, 1.0, 0.0, 0.0)]
    rows = places.table(records).splitlines()
    middle = next(row for row in rows if row.startswith("| middle"))
    assert middle == "| middle | " + " | ".join(["80% / 40%"] * 3 + ["0% / 0%"] * 3) + " |"
    assert "| a | all layers (middle) | 0.6000 | 0.0200 | 2,048 |" in rows
    places.draw_map(records, tmp_path / "map.png")
    page = Image.open(tmp_path / "map.png")
    assert page.width > 4 * 84 and page.height > 3 * 40


@pytest.mark.parametrize("name", ["all K/V", "lora"])
def test_a_method_may_be_shown_some_layers_alone(name: str) -> None:
    more = ProjectionLayout((*NAMES, "middle_block.1.proj_in", "out.2"), (*LAYOUT.shapes, (4, 4), (4, 4)))
    material = SimpleNamespace(
        layout=LAYOUT,
        device=torch.device("cpu"),
        weights_in=lambda scope: more,
        weights=lambda layout=None: {n: torch.ones(more.shape(n)) for n in (layout or LAYOUT).names},
    )
    method = SomeLayers(METHODS[name], "middle, up 0.0")
    assert method.name == name and method.prior == METHODS[name].prior
    moving = method.prepare(material, method.Selection()).moving()  # type: ignore[arg-type]
    expected = set(NAMES[2:]) | ({"middle_block.1.proj_in"} if name == "lora" else set())
    assert set(moving) == expected
