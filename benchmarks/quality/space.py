"""A space of faces: learns many, each alone, and draws what lies between and beyond them.

    python3 dev.py bench space                                 40 faces; needs npm for the emoji
    python3 dev.py bench space --faces 60 --folder my_faces

Every face that is learned is kept as a memory of its own in the folder, and taken from there the next time.
The sheet has a row each of: faces as they are given; the same as learned; the mean and new faces; new faces
of the largest components alone; one of them, farther and farther from the mean; faces moved to teal; faces
moved from sad to glad; new faces moved to pink. Beside it `space.json` tells what the nodes tell, and how
blue, and how green, the middle of the pictures is.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.paths import ROOT
from devtools.staging import JUDGE, expanded_base

from ..host import start_host
from .variants import SETTINGS

if TYPE_CHECKING:
    from torch import Tensor

    from cns_core.memory import ConceptMemory
    from cns_core.space.making import Made
    from cns_core.space.members import Members

    from .bench import Bench
    from .faces import Face

# What suits the small base: ten seconds of one idle core for each face.
METHOD = "lora"
SUITED: dict[str, Any] = {
    "steps": 40,
    "batch_size": 2,
    "token_lr": 2e-2,
    "rank": 8,
    "alpha": 8.0,
    "weight_lr": 1e-2,
    "prior": "none",
    "weights": "keys and values",
}
SIDE = 64
PROMPT = "a photo of {} on a grey background"
ACROSS = 10  # pictures in a row
FARTHER = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3)
STEPS = (0, 0.5, 1, 1.5, 2)
BOTH_WAYS = (-1, -0.5, 0, 0.5, 1)


def main() -> int:
    """Run the command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="dev.py bench space", description=__doc__, formatter_class=layout)
    parser.add_argument("--faces", type=int, default=40, help="how many to learn, 12 or more (%(default)s)")
    parser.add_argument("--steps", type=int, default=SUITED["steps"], help="of each (%(default)s)")
    parser.add_argument("--components", type=int, default=8, help="of the row with few (%(default)s)")
    parser.add_argument("--rank", type=int, default=32, help="of samples and edits (%(default)s)")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "demo_output" / "space", help="of all that is kept"
    )
    options = parser.parse_args()
    if options.faces < ACROSS + 2:
        parser.error(f"--faces is {options.faces}; {ACROSS + 2} or more make the sheet")
    options.folder.mkdir(parents=True, exist_ok=True)
    start_host()
    import torch

    from cns_core.space.members import gathered

    from .bench import Bench, Options
    from .faces import faces

    settings = {name: default for name, default, _ in SETTINGS} | SUITED | {"steps": options.steps}
    chosen = faces(options.faces, options.folder / "packages")
    with torch.inference_mode():
        bench = Bench(Options(expanded_base(), JUDGE, SIDE, 3.0, options.folder / "space.jsonl", settings))
        members = gathered([learned(bench, face, options.folder) for face in chosen])
        sheet = Sheet(bench, chosen, members, options.rank)
        sheet.draw(options.components)
    sheet.save(options.folder)
    return 0


def learned(bench: Bench, face: Face, folder: Path) -> ConceptMemory:
    """A memory of the face alone, learned now or before. ValueError where it was learned otherwise."""
    from cns_core.memory_file import load_memory, save_memory

    path, wanted = folder / f"face-{face.number:03}.safetensors", bench.options.settings
    if path.is_file():
        kept = load_memory(path)
        had = {name: value for part in kept.concepts[0].settings.values() for name, value in part.items()}
        if other := [name for name in SUITED if had[name] != wanted[name]]:
            raise ValueError(
                f"{path} was learned with {other[0]} {had[other[0]]}, not {wanted[other[0]]}; give --folder "
                "a new one."
            )
        return kept
    begin = time.process_time()
    memory, _ = bench.learn(face.concept(SIDE), None, METHOD, 0)
    save_memory(path, memory)
    took = time.process_time() - begin
    print(f"[space] learned {face.token}, {face.name}, {face.colour}: {took:.0f} s of CPU", flush=True)
    return memory


class Sheet:
    """Rows of pictures, and what there is to tell of them."""

    def __init__(self, bench: Bench, faces: Sequence[Face], members: Members, rank: int) -> None:
        self._bench, self._faces, self._members, self._rank = bench, faces, members, rank
        self._rows: list[list[Tensor]] = []
        self._told: list[dict[str, Any]] = []

    def draw(self, components: int) -> None:
        """All rows."""
        shown = self._faces[:ACROSS]
        self._row("given", [face.concept(SIDE).images[2].pixels for face in shown])
        self._row("learned", [self._picture(self._memory(i)) for i in range(ACROSS)])
        new = [self._sample(seed, 1.0 if seed else 0.0, 0) for seed in range(ACROSS)]
        self._row("the mean, and new faces", [self._picture(m.memory) for m in new], new[1].lines)
        few = [self._sample(seed, 1.0, components) for seed in range(1, ACROSS + 1)]
        self._row(f"{components} components", [self._picture(m.memory) for m in few], few[0].lines)
        far = [self._sample(1, distance, components) for distance in FARTHER]
        self._row("farther from the mean", [self._picture(m.memory) for m in far])
        colours = {colour: self._tokens("colour", colour) for colour in ("yellow", "pink", "teal")}
        warm = [i for i, face in enumerate(shown) if face.colour != "teal"]
        starts = [self._memory(i) for i in warm[:2]]
        self._edits("to teal", starts, colours["teal"], f"{colours['yellow']},{colours['pink']}", STEPS)
        moods = {mood: self._tokens("mood", mood) for mood in ("glad", "sad")}
        sad = [i for i, face in enumerate(self._faces) if face.mood == "sad"]
        glad = [i for i, face in enumerate(self._faces) if face.mood == "glad"]
        starts = [self._memory(sad[0]), self._memory(glad[0])]
        self._edits("from sad to glad", starts, moods["glad"], moods["sad"], BOTH_WAYS)
        starts = [made.memory for made in new[1:3]]
        self._edits(
            "new faces to pink", starts, colours["pink"], f"{colours['yellow']},{colours['teal']}", STEPS
        )

    def save(self, folder: Path) -> None:
        """`space.png` and `space.json`."""
        from PIL import Image

        from cns_core.evaluation.sheets import grouped

        shown = [[Image.fromarray((p * 255).round().byte().numpy()) for p in row] for row in self._rows]
        grouped([[row[:5], row[5:]] for row in shown]).save(folder / "space.png")
        (folder / "space.json").write_text(json.dumps(self._told, indent=1) + "\n", encoding="utf-8")
        print(folder / "space.png")

    def _row(self, label: str, pictures: list[Tensor], lines: Sequence[str] = ()) -> None:
        middle = slice(SIDE // 3, SIDE - SIDE // 3)
        means = [p[middle, middle].mean(dim=(0, 1)).tolist() for p in pictures]
        self._rows.append(pictures)
        self._told.append({"row": label, "lines": list(lines), "colours": means})
        print("\n  ".join([f"[space] row {len(self._rows)}: {label}", *lines]), flush=True)

    def _memory(self, place: int) -> ConceptMemory:
        from cns_core.memory import ConceptMemory

        members = self._members
        return ConceptMemory(members.base, members.layout, (members.concepts[place],))

    def _sample(self, seed: int, distance: float, components: int) -> Made:
        from cns_core.space.making import sample
        from cns_core.space.settings import SampleSettings

        settings = SampleSettings(components=components, rank=self._rank, seed=seed, distance=distance)
        return sample(self._members, f"new {seed}", settings, lambda done, total: None)

    def _edits(
        self, label: str, starts: Sequence[ConceptMemory], more: str, less: str, strengths: Sequence[float]
    ) -> None:
        from cns_core.space.making import edit
        from cns_core.space.settings import EditSettings

        made = [
            edit(
                self._members,
                start.concepts[0],
                more,
                less,
                "",
                EditSettings(rank=self._rank, strength=strength),
                lambda done, total: None,
            )
            for start in starts
            for strength in strengths
        ]
        self._row(label, [self._picture(m.memory) for m in made], made[-1].lines)

    def _tokens(self, what: str, value: str) -> str:
        return ",".join(face.token for face in self._faces if getattr(face, what) == value)

    def _picture(self, memory: ConceptMemory) -> Tensor:
        return self._bench.draw(memory, [PROMPT.format(memory.concepts[0].token)], 0)[0]


if __name__ == "__main__":
    raise SystemExit(main())
