"""How well concepts are learned on the small base, and how little is forgotten.

    python3 dev.py bench learning                              each of the 20 concepts alone
    python3 dev.py bench learning --set 1 --seeds 3 \\
        --methods "all K/V" "random entries" "cns without L_reg" cns

Without --set or --stream each concept is learned alone. With it they are learned one after another, and every
concept is drawn again after each. A score is CLIP-I on a scale from 0, the base drawing the class word, to
1, the concept's own pictures against each other; it can leave both ends. Every finished run is a line in
the output file, and a run that is in it is not made again; what was drawn lies in the folder beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.concept_folders import ConceptFolder, read_concepts
from devtools.paths import ROOT
from devtools.staging import JUDGE, SHIPPED_CONCEPTS, expanded_base
from small_base.world.sets import SETS_FOLDER, read_set

from ..host import start_host
from .report import summary, write_sheets
from .variants import VARIANTS

if TYPE_CHECKING:
    from .bench import Bench

# Name, default, what it says: of training, of selecting and of the methods, see their settings.
_SETTINGS: tuple[tuple[str, Any, str], ...] = (
    ("steps", 150, "of training"),
    ("batch_size", 4, "pictures a step"),
    ("token_lr", 1e-2, "learning rate of the token"),
    ("neuron_lr", 1e-3, "of selected entries"),
    ("weight_lr", 1e-3, "of all of K/V"),
    ("keep_earlier", 1e-3, "first lambda of L_reg"),
    ("keep_base", 1e-4, "second lambda of L_reg"),
    ("prior_weight", 1.0, "of the image-free prior"),
    ("budget_percent", 17.0, "of K/V, to end with"),
)
Stages = Callable[[dict[str, Any]], list[dict[str, Any]]]


def main() -> int:
    """Run the command line; returns the exit code."""
    options = build_parser().parse_args()
    if options.set:
        options.stream = folders_of_set(options.set)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    start_host()
    import torch

    from .bench import Bench, Options

    settings = {name: getattr(options, name) for name, _, _ in _SETTINGS}
    if options.top_percent:
        settings |= {"select_by": "top percent", "top_percent": options.top_percent}
    checkpoint = options.checkpoint or expanded_base()
    with torch.inference_mode():  # as the host runs nodes
        bench = Bench(
            Options(checkpoint, options.clip_model, options.resolution, options.cfg, options.output, settings)
        )
        results = run(options, {**settings, "cfg": options.cfg}, lambda key: stages_of(bench, key))
    print(summary(results))
    for path in write_sheets(results, options.output, SHIPPED_CONCEPTS):
        print(path)
    return 0


def run(options: argparse.Namespace, settings: dict[str, Any], stages: Stages) -> list[dict[str, Any]]:
    """Every run that is asked for and not in the output file yet; returns all of them."""
    done = _read(options.output)
    streams = [options.stream] if options.stream else [[folder] for folder in options.concepts]
    wanted = [
        {"stream": stream, "method": method, "seed": seed, "resolution": options.resolution, **settings}
        for stream in streams
        for method in options.methods
        for seed in range(options.seeds)
    ]
    results = []
    for key in wanted:
        found = next((record for record in done if all(record.get(k) == v for k, v in key.items())), None)
        if found is None:
            found = {**key, "stages": stages(key)}
            with options.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
        results.append(found)
        print(_line(found), flush=True)
    return results


def stages_of(bench: Bench, key: dict[str, Any]) -> list[dict[str, Any]]:
    """Learn the concepts of one run in order, and score all learned so far after each."""
    memory, stages = None, []
    folders = read_concepts(SHIPPED_CONCEPTS, key["stream"])
    for index, folder in enumerate(folders):
        memory, facts = bench.learn(bench.concept(folder), memory, key["method"], key["seed"])
        scores = {f.name: bench.score(f, memory, key["method"], key["seed"]) for f in folders[: index + 1]}
        stages.append({"learned": folder.name, **facts, "scores": scores})
        shown = ", ".join(f"{name} {s['score']:.2f}" for name, s in scores.items())
        print(f"[learning] {key['method']}, seed {key['seed']}, after {folder.name}: {shown}", flush=True)
    return stages


def folders_of_set(number: int) -> list[str]:
    """The folders of an ordered set's concepts, which the set calls by their names."""
    folders = {folder.name: folder.folder.name for folder in every_concept()}
    return [folders[one.name] for one in read_set(SETS_FOLDER / f"set{number}.json").concepts]


def every_concept() -> list[ConceptFolder]:
    """All that are shipped, by the names of their folders."""
    return read_concepts(SHIPPED_CONCEPTS)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="dev.py bench learning", description=__doc__, formatter_class=layout
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="of the small base; default: the one in this repository"
    )
    parser.add_argument(
        "--clip-model", type=Path, default=JUDGE, help="a CLIP folder; default: the small judge"
    )
    every = [concept.folder.name for concept in every_concept()]
    parser.add_argument("--concepts", nargs="+", choices=every, default=every, metavar="NAME")
    streams = parser.add_mutually_exclusive_group()
    streams.add_argument("--stream", nargs="+", choices=every, metavar="NAME", help="learn these in order")
    streams.add_argument("--set", type=int, choices=(1, 2, 3), help="learn this ordered set of seven")
    parser.add_argument("--methods", nargs="+", choices=tuple(VARIANTS), default=["cns"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--resolution", type=int, default=64)
    for name, default, help_text in _SETTINGS:
        words = f"{help_text} (%(default)s)"
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=words)
    parser.add_argument("--top-percent", type=float, default=0.0, help="k of Eq. 3, in place of the budget")
    parser.add_argument("--cfg", type=float, default=3.0)
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "demo_output" / "learning.jsonl",
        help="of the runs; other settings draw over the same pictures, so give them a file of their own",
    )
    return parser


def _line(record: dict[str, Any]) -> str:
    last = record["stages"][-1]
    mean = statistics.mean(s["score"] for s in last["scores"].values())
    return (
        f"{' -> '.join(record['stream'])}, {record['method']}, seed {record['seed']}: mean score {mean:.3f}"
    )


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    raise SystemExit(main())
