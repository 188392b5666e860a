"""How much room a checkpoint's text features leave for concepts: spectra of general prompts, and gains.

    python3 dev.py bench directions                               the small base of this repository
    python3 dev.py bench directions --checkpoint sd15.safetensors
    python3 dev.py bench directions --memory my_concepts.safetensors

Nothing is trained. The first table says how the features of general prompts are spread, the second what gains
the first directions would have for concepts of some class words, with a made-up word as the token.

With a memory made on the checkpoint: by how much it moves keys and values of general prompts and of its own
captions, when it is merged into weights of each precision, as the host does for drawing; and by how much each
concept alone moves those of the others, which is what they lose or regain when it is taken out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.staging import expanded_base

from .host import start_host

if TYPE_CHECKING:
    from cns_core.memory import ConceptMemory
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
    parser.add_argument("--memory", type=Path, help="a memory file: what merging it does")
    options = parser.parse_args()
    start_host()
    import torch

    if options.memory is not None:
        with torch.inference_mode():
            print("\n".join(merged(options.checkpoint, options.memory)))
        return 0
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
    loaded, found = _load(checkpoint), {}
    for count in counts:
        begin = time.perf_counter()
        by_word = {word: _prepared(loaded, word, None, count) for word in class_words}
        found[count] = (time.perf_counter() - begin, by_word)
    return found


def merged(checkpoint: Path | None, memory_file: Path) -> list[str]:
    """The rows of a table: for each precision how far keys and values move, root mean square."""
    import torch
    from comfy.float import stochastic_rounding

    from cns_core.host.model import read_base
    from cns_core.memory_file import load_memory

    loaded, memory = _load(checkpoint), load_memory(memory_file)
    base = read_base(*loaded)
    memory.check_base(base.identity)
    protected = _prepared(loaded, "thing", memory, 0).protected
    tokens = list(memory.token_vectors())

    def cells(precision: torch.dtype, strengths: dict[str, float]) -> list[str]:
        moved = []
        for name, one in memory.laid(strengths).items():
            change = one.up @ one.down if one.dense is None else one.summed().float()
            frozen = base.weights[name].to(precision)
            summed = frozen.float() + change
            moved.append(stochastic_rounding(summed, precision, seed=0).float() - frozen.float())
        effects = protected.effects(torch.cat(moved))
        del effects["its class word"]  # of a concept that is none
        return [f"{share:.3%}" for share in effects.values()]

    heads = ["weights", "general prompts", *tokens]
    rows = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for precision in (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn):
        rows.append(f"| {str(precision).removeprefix('torch.')} | {' | '.join(cells(precision, {}))} |")
    for token in tokens:
        others_out = {other: 0.0 for other in tokens if other != token}
        rows.append(f"| float32, {token} alone | {' | '.join(cells(torch.float32, others_out))} |")
    return rows


def _prepared(
    loaded: tuple[Any, Any], class_word: str, memory: ConceptMemory | None, general_prompts: int
) -> Guarded:
    """For a concept of some class that has no pictures."""
    import torch

    from cns_core.captions import template_captions
    from cns_core.concept import Concept
    from cns_core.host.prepare import prepare
    from cns_core.images import TrainingImage
    from cns_core.methods import METHODS

    directions, token = METHODS["directions"], "<no-concept>"
    image = TrainingImage(torch.zeros(64, 64, 3), template_captions("subject", token), None, "none")
    concept = Concept("no concept", token, class_word, "subject", (image,))
    settings = directions.Selection(general_prompts=general_prompts)
    plan = prepare(*loaded, concept, memory, directions, settings, lambda done, total: None)
    guarded: Guarded = plan.prepared
    return guarded


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


def _load(checkpoint: Path | None) -> tuple[Any, Any]:
    if checkpoint is None:
        from small_base.comfyui_nodes import load_small_base

        return load_small_base(str(expanded_base()))[:2]
    import comfy.sd

    model, clip, *_ = comfy.sd.load_checkpoint_guess_config(str(checkpoint), output_vae=False)
    return model, clip


if __name__ == "__main__":
    raise SystemExit(main())
