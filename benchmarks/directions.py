"""How much room a checkpoint's text features leave for concepts: spectra of general prompts, and gains.

    python3 dev.py bench directions                               the small base of this repository
    python3 dev.py bench directions --checkpoint sd15.safetensors

Nothing is trained. The first table says how the features of general prompts are spread, the second what gains
the first directions would have for concepts of some class words, with a made-up word as the token.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from devtools.staging import expanded_base

from .host import start_host

if TYPE_CHECKING:
    from cns_core.methods.directions.prepared import Guarded
    from cns_core.protected import Protected

_CLASS_WORDS = ("dog", "person", "cup", "house")
_FLOORS = (1e-3, 1e-2, 3e-2)


def main() -> int:
    """Run the command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="dev.py bench directions", description=__doc__, formatter_class=layout
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="an SD 1.x, 2.x or SDXL file; default: the small base"
    )
    parser.add_argument("--prompts", type=int, nargs="+", default=[128, 1024, 4096], help="general prompts")
    parser.add_argument("--class-words", nargs="+", default=_CLASS_WORDS, metavar="WORD")
    options = parser.parse_args()
    start_host()
    import torch

    with torch.inference_mode():
        found = measured(options.checkpoint, options.prompts, options.class_words)
    print(f"\n| {' | '.join(_SPECTRUM)} |\n|{'---|' * len(_SPECTRUM)}")
    for count, (seconds, by_word) in found.items():
        cells = spectrum(next(iter(by_word.values())).protected)
        print(f"| {count:,} | {' | '.join(cells)} | {seconds:.0f} |")
    print("\n| general prompts | class word | gains of the first directions |\n|---|---|---|")
    for count, (_, by_word) in found.items():
        for word, prepared in by_word.items():
            gains = ", ".join(f"{gain:.3g}" for gain in prepared.forecast.gains)
            print(f"| {count:,} | {word} | {gains} |")
    return 0


def measured(
    checkpoint: Path | None, counts: Sequence[int], class_words: Sequence[str]
) -> dict[int, tuple[float, dict[str, Guarded]]]:
    """By the number of general prompts: the seconds that it took, and by class word what was prepared."""
    import torch

    from cns_core.captions import template_captions
    from cns_core.concept import Concept
    from cns_core.host.prepare import prepare
    from cns_core.images import TrainingImage
    from cns_core.methods import METHODS

    model, clip = _load(checkpoint)
    directions, found = METHODS["directions"], {}
    for count in counts:
        begin, by_word = time.perf_counter(), {}
        for word in class_words:
            captions = template_captions("subject", "<my-concept>")
            image = TrainingImage(torch.zeros(64, 64, 3), captions, None, "none")
            concept = Concept("my concept", "<my-concept>", word, "subject", (image,))
            settings = directions.Selection(general_prompts=count)
            plan = prepare(model, clip, concept, None, directions, settings, lambda done, total: None)
            by_word[word] = plan.prepared
        found[count] = (time.perf_counter() - begin, by_word)
    return found


_SPECTRUM = (
    "general prompts",
    "text dimensions",
    "condition of their moment",
    "directions that hold 99 % of the energy",
    *(f"quiet at floor {floor:g}" for floor in _FLOORS),
    "condition of P",
    "seconds",
)


def spectrum(protected: Protected) -> list[str]:
    """The cells of the first table between the number of prompts and the seconds."""
    import torch

    values = torch.linalg.eigvalsh(protected.general).flip(0).clamp(min=0)
    total, level = float(values.sum()), float(values.mean())
    whole = torch.linalg.eigvalsh(protected.moment())
    most = int((values.cumsum(0) < 0.99 * total).sum()) + 1
    return [
        f"{len(values):,}",
        f"{float(values[0] / values[-1].clamp(min=torch.finfo(values.dtype).tiny)):.1e}",
        f"{most:,}",
        *(f"{int((values < floor * level).sum()):,}" for floor in _FLOORS),
        f"{float(whole[-1] / whole[0]):.1e}",
    ]


def _load(checkpoint: Path | None) -> tuple[object, object]:
    if checkpoint is None:
        from small_base.comfyui_nodes import load_small_base

        return load_small_base(str(expanded_base()))[:2]
    import comfy.sd

    model, clip, *_ = comfy.sd.load_checkpoint_guess_config(str(checkpoint), output_vae=False)
    return model, clip


if __name__ == "__main__":
    raise SystemExit(main())
