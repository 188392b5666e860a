"""How well concepts are learned on the small base, and how little is forgotten.

    python3 dev.py bench learning                              each of the 20 concepts alone
    python3 dev.py bench learning --set 1 --seeds 3 \\
        --methods "all K/V" "random entries" "cns without L_reg" cns directions
    python3 dev.py bench learning --four --seeds 3 --draw never --methods cns directions

Without --set, --stream, --four or --all each concept is learned alone. With it they are learned one after
another, and every concept is looked at again after each. Fit is the error of predicting the noise in its own
pictures, drift how far predictions for other prompts have moved (`fixed_noise.py`). A score is CLIP-I of what
is drawn, on a scale from 0, the base drawing the class word, to 1, the concept's own pictures against each
other; it can leave both ends. Every finished run is a line in the output file, and a run that is in it is not
made again; what was drawn lies in the folder beside it.
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
from .variants import SETTINGS, VARIANTS

# Streams of four kinds of concepts each: with --four.
FOURS = (
    ("panda", "teapot", "parrot", "unicorn"),
    ("poodle", "pop-print-style", "reef-place", "backpack"),
    ("ladybug", "volcano-place", "racing-car", "blueprint-style"),
    ("skunk", "nesting-dolls", "openmoji-style", "roller-skate"),
)
EACH, AT_THE_END, NEVER = "after each", "at the end", "never"

if TYPE_CHECKING:
    from .bench import Bench

Stages = Callable[[dict[str, Any]], list[dict[str, Any]]]


def main() -> int:
    """Run the command line; returns the exit code."""
    options = build_parser().parse_args()
    options.streams = streams_of(options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    start_host()
    import torch

    from .bench import Bench, Options

    settings = {name: getattr(options, name) for name, _, _ in SETTINGS}
    if options.top_percent:
        settings |= {"select_by": "top percent", "top_percent": options.top_percent}
    checkpoint = options.checkpoint or expanded_base()
    with torch.inference_mode():  # as the host runs nodes
        bench = Bench(
            Options(checkpoint, options.clip_model, options.resolution, options.cfg, options.output, settings)
        )
        results = run(options, settings, lambda key: stages_of(bench, key))
    print(summary(results))
    for path in write_sheets(results, options.output, SHIPPED_CONCEPTS):
        print(path)
    return 0


def run(options: argparse.Namespace, settings: dict[str, Any], stages: Stages) -> list[dict[str, Any]]:
    """Every run that is asked for and not in the output file yet; returns all of them."""
    done = _read(options.output)
    wanted = [
        {
            **{"stream": stream, "method": method, "seed": seed},
            **{"resolution": options.resolution, "cfg": options.cfg, "draw": options.draw},
            **VARIANTS[method].settings(settings),
        }
        for seed in range(options.seeds)
        for stream in options.streams
        for method in options.methods
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
    """Learn the concepts of one run in order, and look at all learned so far after each."""
    memory, stages = None, []
    folders = read_concepts(SHIPPED_CONCEPTS, key["stream"])
    for index, folder in enumerate(folders):
        memory, facts = bench.learn(bench.concept(folder), memory, key["method"], key["seed"])
        so_far, last = folders[: index + 1], index + 1 == len(folders)
        seen = bench.look(memory, so_far)
        drawn = so_far if key["draw"] == EACH or (last and key["draw"] == AT_THE_END) else []
        scores = {f.name: bench.score(f, memory, key["method"], key["seed"]) for f in drawn}
        stages.append({"learned": folder.name, **facts, **seen, "scores": scores})
        fits = ", ".join(f"{name} {fit:.4f}" for name, fit in seen["fit"].items())
        shown = ", ".join(f"{score['score']:.2f}" for score in scores.values()) or "not drawn"
        print(
            f"[learning] {key['method']}, seed {key['seed']}, after {folder.name}: fit {fits}; "
            f"drift {seen['drift']:.4f}; scores {shown}",
            flush=True,
        )
    return stages


def streams_of(options: argparse.Namespace) -> list[list[str]]:
    """The folders of the concepts of each stream that is asked for."""
    if options.set:
        return [folders_of_set(options.set)]
    if options.stream:
        return [options.stream]
    if options.four:
        return [list(stream) for stream in FOURS]
    return [options.concepts] if options.all else [[folder] for folder in options.concepts]


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
    streams.add_argument("--four", action="store_true", help="learn four streams of four concepts")
    streams.add_argument("--all", action="store_true", help="learn all of --concepts in one stream")
    parser.add_argument(
        "--draw", choices=(EACH, AT_THE_END, NEVER), default=EACH, help="when to draw and score"
    )
    parser.add_argument("--methods", nargs="+", choices=tuple(VARIANTS), default=["cns"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--resolution", type=int, default=64)
    for name, default, help_text in SETTINGS:
        words = f"{help_text.replace('%', '%%')} (%(default)s)"
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
    fit = statistics.mean(last["fit"].values())
    line = f"{' -> '.join(record['stream'])}, {record['method']}, seed {record['seed']}: mean fit {fit:.4f}"
    if not last["scores"]:
        return line
    return f"{line}, mean score {statistics.mean(s['score'] for s in last['scores'].values()):.3f}"


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    raise SystemExit(main())
