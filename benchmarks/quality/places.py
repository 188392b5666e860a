"""In which attention layers learned concepts live, on the small base: a subject, a style and a place.

    python3 dev.py bench places                       tables, and a heat map
    python3 dev.py bench places --halves              also: does it pay to train those layers alone?
    python3 dev.py bench places --draw                also: pictures with each layer alone, and without it

Shares are of the way from the token alone (0) to all that was learned (1), in the error of predicting the
noise in a concept's own pictures (`cns_core/localisation.py`). With --halves each concept is learned again in
the half of the layers that carry most of it, and in the other half. With --draw the scores of what is drawn
are told besides (see `dev.py bench learning`), for the first seed. Every finished run is a line in the output
file, and a run that is in it is not made again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.concept_folders import ConceptFolder, read_concepts
from devtools.paths import ROOT
from devtools.staging import JUDGE, SHIPPED_CONCEPTS, expanded_base

from ..host import start_host
from .variants import SETTINGS, VARIANTS

if TYPE_CHECKING:
    from cns_core.localisation import Localisation
    from cns_core.memory import ConceptMemory

    from .bench import Bench

CONCEPTS = ("panda", "pop-print-style", "reef-place")
_PARTS = ("all", "keys", "values")  # of `cns_core.localisation`
ALL_LAYERS, CARRYING, OTHERS = "all layers", "the half that carries most", "the other half"


def main() -> int:
    """Run the command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="dev.py bench places", description=__doc__, formatter_class=layout)
    every = [concept.folder.name for concept in read_concepts(SHIPPED_CONCEPTS)]
    parser.add_argument("--concepts", nargs="+", choices=every, default=list(CONCEPTS), metavar="NAME")
    parser.add_argument("--methods", nargs="+", choices=tuple(VARIANTS), default=["directions"])
    parser.add_argument("--seeds", type=int, default=1, help="of learning")
    parser.add_argument("--samples", type=int, default=64, help="pairs of picture and noise")
    parser.add_argument("--halves", action="store_true", help="learn again in half of the layers")
    parser.add_argument("--draw", action="store_true", help="draw with each layer alone, and without it")
    parser.add_argument("--output", type=Path, default=ROOT / "demo_output" / "places.jsonl")
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    start_host()
    import torch

    from .bench import Bench, Options

    settings = {name: default for name, default, _ in SETTINGS}
    with torch.inference_mode():
        bench = Bench(Options(expanded_base(), JUDGE, 64, 3.0, options.output, settings))
        records = runs(bench, options)
    for method in options.methods:
        mine = [record for record in records if record["method"] == method]
        path = options.output.with_name(f"places-{method.replace(' ', '-')}.png")
        draw_map(mine, path)
        print(f"\n{method}: {path}\n\n{table(mine)}")
    return 0


def runs(bench: Bench, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A record for each seed, method and concept."""
    lines = options.output.read_text(encoding="utf-8").splitlines() if options.output.is_file() else []
    done, records = [json.loads(line) for line in lines], []
    for seed in range(options.seeds):
        for method in options.methods:
            for folder in read_concepts(SHIPPED_CONCEPTS, options.concepts):
                key = {
                    **{"concept": folder.folder.name, "method": method, "seed": seed},
                    **{"samples": options.samples, "halves": options.halves},
                    "draw": options.draw and seed == 0,
                }
                found = next((r for r in done if all(r.get(k) == v for k, v in key.items())), None)
                if found is None:
                    found = {**key, **one(bench, folder, key)}
                    with options.output.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(found) + "\n")
                records.append(found)
                print(f"[places] {json.dumps(found)}", flush=True)
    return records


def one(bench: Bench, folder: ConceptFolder, key: dict[str, Any]) -> dict[str, Any]:
    """Learn a concept, find where it lives, and learn it there alone."""
    from cns_core.host.locate import locate
    from cns_core.host.precision import FLOAT32
    from cns_core.localisation import LocateSettings

    concept, method, seed = bench.concept(folder), key["method"], key["seed"]
    memory, facts = bench.learn(concept, None, method, seed)
    how = LocateSettings(samples=key["samples"], keys_and_values=True)
    found = locate(bench.loaded, memory, concept, how, lambda done, total: None, FLOAT32)
    record = as_record(found)
    if key["draw"]:
        record["scores"] = _scores(bench, memory, folder)
    if key["halves"]:
        record["learned"] = {ALL_LAYERS: {**_seen(bench, memory, folder), **facts}}
        for what, labels in halves(found).items():
            part, of_part = bench.learn(concept, None, method, seed, layers=", ".join(labels))
            record["learned"][what] = {"layers": labels, **_seen(bench, part, folder), **of_part}
    return record


def as_record(found: Localisation) -> dict[str, Any]:
    """The figures, as JSON has them."""
    shares = {
        label: {part: [share.only, share.lost] for part, share in parts.items()}
        for label, parts in found.shares.items()
    }
    errors = {"class_word": found.class_word, "token_alone": found.token_alone, "whole": found.whole}
    return {"errors": errors, "by_the_token": found.by_the_token(), "doubt": found.doubt(), "shares": shares}


def halves(found: Localisation) -> dict[str, list[str]]:
    """The layers, by how much of the concept is there with each alone, in two halves."""
    from cns_core.localisation import ALL, EVERYWHERE

    layers = {label: parts[ALL].only for label, parts in found.shares.items() if label != EVERYWHERE}
    ranked = sorted(layers, key=lambda label: -layers[label])
    first = ranked[: len(ranked) // 2]
    return {
        CARRYING: [label for label in layers if label in first],
        OTHERS: [label for label in layers if label not in first],
    }


def _seen(bench: Bench, memory: ConceptMemory, folder: ConceptFolder) -> dict[str, Any]:
    from .bench import size_of

    seen = bench.look(memory, [folder])
    bytes_kept = size_of(memory.concepts[-1])
    return {"fit": seen["fit"][folder.name], "drift": seen["drift"], "bytes": bytes_kept}


def _scores(bench: Bench, memory: ConceptMemory, folder: ConceptFolder) -> dict[str, float]:
    """Of what is drawn with all that was learned, the token alone, each layer alone, and without each."""
    from cns_core.localisation import restricted
    from cns_core.places import places_of

    concept = memory.concepts[-1]
    every = frozenset(concept.change.layout.names)
    variants = {"all": every, "token alone": frozenset[str]()}
    for place in places_of(memory.layout, concept.change.layout):
        variants[f"only {place.label}"] = frozenset(place.names)
        variants[f"without {place.label}"] = every - frozenset(place.names)
    return {
        what: bench.score(folder, restricted(memory, concept.token, names), what, 0)["score"]
        for what, names in variants.items()
    }


def mean_share(records: Sequence[dict[str, Any]], label: str, part: str, which: int) -> float:
    """Over seeds; which: 0 for only here, 1 for lost without."""
    return statistics.mean(record["shares"][label][part][which] for record in records)


def by_concept(records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The records of each, in their order."""
    names = dict.fromkeys(record["concept"] for record in records)
    return {name: [record for record in records if record["concept"] == name] for name in names}


def draw_map(records: Sequence[dict[str, Any]], path: Path) -> None:
    """A row for each layer, two columns for each concept."""
    from PIL import Image

    from cns_core.evaluation.heat_table import Cell, heat_table
    from cns_core.localisation import ALL, EVERYWHERE

    of = by_concept(records)
    heads = [(name, what) for name in of for what in ("only here", "lost without")]
    labels = [label for label in records[0]["shares"] if label != EVERYWHERE]
    rows = [
        (label, [Cell(mean_share(mine, label, ALL, which)) for mine in of.values() for which in (0, 1)])
        for label in labels
    ]
    note = "shares of what was learned besides the token; rows: the attention layers in order"
    page = heat_table("Where concepts live", note, heads, rows, "{:.0%}".format, (0.0, 1.0))
    Image.fromarray((page[0] * 255).round().byte().numpy()).save(path)


def table(records: Sequence[dict[str, Any]]) -> str:
    """All figures, as means over seeds."""
    of = by_concept(records)
    lines = ["| layer | " + " | ".join(f"{name}: {part}" for name in of for part in _PARTS) + " |"]
    lines.append("|---" * (1 + len(of) * len(_PARTS)) + "|")
    for label in records[0]["shares"]:
        cells = [
            " / ".join(f"{mean_share(mine, label, part, which):.0%}" for which in (0, 1))
            for mine in of.values()
            for part in _PARTS
        ]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines += ["", "only here / lost without", ""]
    for name, mine in of.items():
        error = {what: statistics.mean(r["errors"][what] for r in mine) for what in mine[0]["errors"]}
        by_token, doubt = (statistics.mean(r[what] for r in mine) for what in ("by_the_token", "doubt"))
        told = ", ".join(f"{what} {value:.4f}" for what, value in error.items())
        lines.append(f"- {name}: {told}; the token alone goes {by_token:.0%}; figures +- {doubt:.0%}")
        for scores in (record["scores"] for record in mine if "scores" in record):
            lines.append("  scores: " + ", ".join(f"{what} {score:.2f}" for what, score in scores.items()))
    learned = [(name, what, mine) for name, mine in of.items() for what in mine[0].get("learned", ())]
    if learned:
        lines += ["", "| concept | trained | fit | drift | bytes |", "|---|---|---|---|---|"]
    for name, what, mine in learned:
        found = [record["learned"][what] for record in mine]
        fit, drift, size = (statistics.mean(f[k] for f in found) for k in ("fit", "drift", "bytes"))
        layers = f" ({', '.join(found[0]['layers'])})" if "layers" in found[0] else ""
        lines.append(f"| {name} | {what}{layers} | {fit:.4f} | {drift:.4f} | {size:,.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
