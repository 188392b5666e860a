"""Two learned things in one picture: a sheet to look at, a row for each way to ask for it.

    python3 dev.py bench pairs                                    panda and fish, by directions and by CNS
    python3 dev.py bench pairs --pair panda teapot --methods cns

Each method learns both, one after the other. Twenty pictures a row, at seeds 0 to 9 of two wordings: by the
untouched model, with both class words; with both tokens in one prompt; and, side by side, with a prompt for
each half of the picture, by the stock node *Conditioning (Set Area with Percentage)*. How many of them show
both is for eyes to say: to the small judge a mixture of two is as much each of them as a small one is.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cns_core.evaluation.sheets import grouped, stacked
from devtools.concept_folders import ConceptFolder, read_concepts
from devtools.paths import ROOT
from devtools.staging import JUDGE, SHIPPED_CONCEPTS, expanded_base

from ..host import start_host
from .variants import SETTINGS, VARIANTS

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from cns_core.host.types import Loaded

    from .bench import Bench

# Of both in one prompt, and the place that each half's own prompt names.
WORDINGS = (("{} next to {} on a beach", "on a beach"), ("a photo of {} and {} in a meadow", "in a meadow"))
SEEDS = 10  # of each wording
CFG = 3.0


def main() -> int:
    """Run the command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="dev.py bench pairs", description=__doc__, formatter_class=layout)
    names = [concept.folder.name for concept in read_concepts(SHIPPED_CONCEPTS) if concept.kind == "subject"]
    parser.add_argument("--pair", nargs=2, choices=names, default=["panda", "tropical-fish"], metavar="NAME")
    parser.add_argument("--methods", nargs="+", choices=tuple(VARIANTS), default=["directions", "cns"])
    parser.add_argument("--seed", type=int, default=0, help="of learning")
    parser.add_argument("--output", type=Path, default=ROOT / "demo_output", help="the folder of the sheet")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    start_host()
    import torch

    from .bench import Bench, Options

    settings = {name: default for name, default, _ in SETTINGS}
    with torch.inference_mode():
        bench = Bench(Options(expanded_base(), JUDGE, 64, CFG, options.output / "pairs.jsonl", settings))
        pair = read_concepts(SHIPPED_CONCEPTS, options.pair)
        pair.sort(key=lambda folder: options.pair.index(folder.folder.name))
        rows = drawn(bench, pair, options.methods, options.seed)
    path = options.output / f"pairs-{'-'.join(options.pair)}.png"
    stacked(list(rows.values())).save(path)
    for number, label in enumerate(rows, start=1):
        print(f"row {number}: {label}")
    print(path)
    return 0


def drawn(bench: Bench, pair: list[ConceptFolder], methods: list[str], seed: int) -> dict[str, Image.Image]:
    """A row of pictures for each way to ask for both, by what it is."""
    from cns_core.host.personalize import personalize
    from cns_core.host.types import Loaded

    names, tokens = [f"a {folder.class_word}" for folder in pair], [folder.token for folder in pair]
    rows = {"the untouched model, class words in one prompt": _row(in_one_prompt(bench.loaded, names))}
    for method in methods:
        memory = None
        for folder in pair:
            memory, _ = bench.learn(bench.concept(folder), memory, method, seed)
            print(f"[pairs] {method} learned {folder.token}", flush=True)
        assert memory is not None
        drawn = personalize(bench.loaded.model, bench.loaded.clip, memory)
        loaded = Loaded(drawn.model, drawn.clip, bench.loaded.vae)
        rows[f"{method}, both tokens in one prompt"] = _row(in_one_prompt(loaded, tokens))
        rows[f"{method}, a prompt for each half"] = _row(in_halves(loaded, tokens))
    return rows


def in_one_prompt(loaded: Loaded, things: list[str]) -> Tensor:
    """`(2 SEEDS, H, W, 3)`: both named in each prompt."""
    import torch

    from cns_core.host.draw import Sampling, draw

    how, seeds = Sampling(cfg=CFG), list(range(SEEDS))
    prompts = [wording.format(*things) for wording, _ in WORDINGS]
    return torch.cat([draw(loaded, [prompt] * SEEDS, (64, 64), seeds, how) for prompt in prompts])


def in_halves(loaded: Loaded, things: list[str]) -> Tensor:
    """`(2 SEEDS, H, W, 3)`: a prompt for the left half names the first, one for the right half the other."""
    import torch

    from cns_core.host.draw import Sampling, conditioning, draw_conditioned

    def half(thing: str, place: str, left: float) -> list[Any]:
        ((cross, extra),) = conditioning(loaded.clip, [f"a photo of {thing} {place}"] * SEEDS)
        area = {"area": ("percentage", 1.0, 0.5, 0.0, left), "strength": 1.0, "set_area_to_bounds": False}
        return [cross, extra | area]

    parts = []
    for _, place in WORDINGS:
        positive = [half(things[0], place, 0.0), half(things[1], place, 0.5)]
        parts.append(draw_conditioned(loaded, positive, (64, 64), list(range(SEEDS)), Sampling(cfg=CFG)))
    return torch.cat(parts)


def _row(pictures: Tensor) -> Image.Image:
    from PIL import Image

    shown = [Image.fromarray((p * 255).round().byte().numpy()) for p in pictures]
    return grouped([[shown[:SEEDS], shown[SEEDS:]]])


if __name__ == "__main__":
    raise SystemExit(main())
