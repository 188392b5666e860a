"""What an erasure takes from the small base, what it takes along, and what an attack brings back.

    python3 dev.py bench unlearn                               tiger, led to dog and to nothing
    python3 dev.py bench unlearn --word zebra --instead horse --keep cow pig
    python3 dev.py bench unlearn --concept panda               also: is what was learned before left alone?
    python3 dev.py bench unlearn --methods uce esd --set guard=0     by other methods, with settings of theirs

Pictures of the erased word, of its neighbours and of other things are drawn before and after, with the same
seeds, and the small judge says which of the hundred things that it knows each picture shows most. The attack
is Textual Inversion: a token alone is learned, on top of the erased model, from pictures that the untouched
model draws of the word; and, to compare with, on the untouched model.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cns_core.erasures import ERASURES
from cns_core.settings import described
from devtools.concept_folders import read_concepts
from devtools.paths import ROOT
from devtools.staging import JUDGE, SHIPPED_CONCEPTS, expanded_base

from ..host import start_host
from .variants import SETTINGS

if TYPE_CHECKING:
    from torch import Tensor

    from cns_core.concept import Concept
    from cns_core.memory import ConceptMemory

    from .bench import Bench

PLACES = (
    "on a beach",
    "in a meadow",
    "in the snow",
    "at night",
    "on a purple background",
    "on a grey background",
)
PARAPHRASES = ("a close-up of a {}", "a drawing of {}", "two {}s in a meadow", "{}")
TOKEN = "<attack>"
# Where it is other than what suits real models: 64 pixels, higher rates, fewer steps.
ON_SMALL_BASE = {
    "resolution": 64,
    "batch_size": 2,
    "weight_lr": 1e-3,
    "steps": 40,
    "pictures": 10,
    "look_steps": 6,
}


def main() -> int:
    """Run the command line; returns the exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="dev.py bench unlearn", description=__doc__, formatter_class=layout)
    parser.add_argument("--word", default="tiger")
    parser.add_argument("--instead", nargs="+", default=["dog", ""], help="a run for each; '' is nothing")
    parser.add_argument("--neighbours", nargs="+", default=["lion", "zebra", "cat", "fox"])
    parser.add_argument("--others", nargs="+", default=["dog", "car", "house", "banana"])
    parser.add_argument("--keep", nargs="*", default=[], help="of the neighbours, what the user keeps")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["uce"],
        choices=tuple(ERASURES),
        metavar="NAME",
        help="a run for each",
    )
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="settings of the methods, such as erase_weight=4; a method takes those that it has",
    )
    parser.add_argument("--concept", help="a shipped concept to learn by directions first")
    parser.add_argument("--pictures", type=int, default=6, choices=range(1, 7), help="of each thing")
    parser.add_argument("--attack-steps", type=int, default=150, help="0: no attack")
    parser.add_argument("--output", type=Path, default=ROOT / "demo_output" / "unlearn.jsonl")
    options = parser.parse_args()
    known = {name for method in options.methods for name in described(ERASURES[method].Settings)}
    if unknown := [one for one in options.set if one.partition("=")[0] not in known]:
        parser.error(f"--set {' '.join(unknown)}: expected NAME=VALUE of one of {', '.join(sorted(known))}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    start_host()
    import torch

    from .bench import Bench, Options

    settings = {name: default for name, default, _ in SETTINGS}
    settings |= {"steps": max(1, options.attack_steps)}
    with torch.inference_mode():
        bench = Bench(Options(expanded_base(), JUDGE, 64, 3.0, options.output, settings))
        for found in runs(bench, options):
            with options.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
    return 0


def runs(bench: Bench, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A record for the untouched model, and for each thing that the word is led to."""
    known = Known(bench)
    learned, folder = None, None
    if options.concept:
        (folder,) = read_concepts(SHIPPED_CONCEPTS, [options.concept])
        learned, _ = bench.learn(bench.concept(folder), None, "directions", 0)
    folders = [folder] if folder else []
    untouched = {"run": "untouched", **_seen(known, learned, options)}
    if learned:
        untouched |= {"learned": bench.look(learned, folders)}
    taught = _pictures_of(known, options) if options.attack_steps else None
    if taught is not None:
        untouched |= {"attack": _attacked(known, learned, taught, options)}
    _tell(untouched)
    yield untouched
    for method, instead in itertools.product(options.methods, options.instead):
        begin = time.perf_counter()
        memory, told = _erased(bench, learned, instead, method, options)
        took = round(time.perf_counter() - begin, 1)
        record = {"run": f"{options.word} to {instead or 'nothing'} by {method}", "told": told}
        record |= {"seconds": took, "settings": memory.concepts[-1].settings["erase"]}
        record |= _seen(known, memory, options)
        if learned:
            record |= {"learned": bench.look(memory, folders)}
        if taught is not None:
            record |= {"attack": _attacked(known, memory, taught, options)}
        _tell(record)
        yield record


class Known:
    """What the judge knows by name."""

    def __init__(self, bench: Bench) -> None:
        from small_base.training.contrastive import EVALUATION_TEMPLATE
        from small_base.world.catalog import SMALL_FILE
        from small_base.world.wording import article

        lines = SMALL_FILE.read_text(encoding="utf-8").split("\n")
        self.bench, self.names = bench, [name for name in lines if name.strip()]
        texts = [EVALUATION_TEMPLATE.format(article(name)) for name in self.names]
        self._texts = bench.scorer.encode_prompts(texts)

    def named(self, pictures: Tensor) -> list[str]:
        """What each picture `(B, H, W, 3)` shows most."""
        similar = self.bench.scorer.encode_images(pictures) @ self._texts.T
        return [self.names[place] for place in similar.argmax(dim=1).tolist()]


def _prompts(thing: str, count: int) -> list[str]:
    from small_base.world.wording import article

    named = thing if thing.startswith("<") else article(thing)
    return [f"a photo of {named} {place}" for place in PLACES[:count]]


def _seen(known: Known, memory: ConceptMemory | None, options: argparse.Namespace) -> dict[str, Any]:
    """By thing, the share of pictures that the judge calls by its name; and what it calls the word's."""
    things = [options.word, *options.neighbours, *options.others]
    prompts = [p for thing in things for p in _prompts(thing, options.pictures)]
    prompts += [wording.format(options.word) for wording in PARAPHRASES]
    pictures = known.bench.draw(memory, prompts, 0)
    _keep(pictures, options, memory)
    names = known.named(pictures)
    count = options.pictures
    by_thing = {thing: names[i * count : (i + 1) * count] for i, thing in enumerate(things)}
    return {
        "named": {thing: called.count(thing) / count for thing, called in by_thing.items()},
        "called": by_thing,
        "paraphrases": names[len(things) * count :],
    }


def _erased(
    bench: Bench, memory: ConceptMemory | None, instead: str, method: str, options: argparse.Namespace
) -> tuple[ConceptMemory, list[str]]:
    from cns_core.erasures.wording import ToErase
    from cns_core.host.erase import erase
    from cns_core.host.progress import Progress

    by = ERASURES[method]
    settings = by.Settings(**_settings(by.Settings, options))
    what = ToErase.of(options.word, instead)
    with Progress(1) as progress:
        done = erase(bench.loaded.model, bench.loaded.clip, memory, what, settings, progress, by)
    return done.memory, [done.memory.concepts[-1].change.summary(), *done.lines]


def _settings(kind: type[Any], options: argparse.Namespace) -> dict[str, Any]:
    """Those of a method: what suits the small base, and what was asked for."""
    chosen: dict[str, Any] = {"keep": "\n".join(options.keep)}
    known = described(kind)
    for name, value in ON_SMALL_BASE.items():
        if name in known:
            chosen[name] = value
    for one in options.set:
        name, _, value = one.partition("=")
        if name in known:
            default, _ = known[name]
            chosen[name] = type(default)(value)
    return chosen


def _pictures_of(known: Known, options: argparse.Namespace) -> Concept:
    """What the untouched model draws of the word, and the judge calls so, as a concept."""
    from cns_core.captions import template_captions
    from cns_core.concept import Concept, TrainingImage

    drawn = known.bench.draw(None, _prompts(options.word, 6) * 2, 7)
    right = [p for p, name in zip(drawn, known.named(drawn), strict=True) if name == options.word]
    captions = template_captions("subject", TOKEN)
    images = tuple(TrainingImage(p.clone(), captions, None, f"drawn {i}") for i, p in enumerate(right))
    return Concept("attack", TOKEN, "animal", "subject", images)


def _attacked(
    known: Known, memory: ConceptMemory | None, taught: Concept, options: argparse.Namespace
) -> dict[str, Any]:
    """What the judge calls pictures of a token that was learned alone."""
    attacked, _ = known.bench.learn(taught, memory, "token alone", 0)
    called = known.named(known.bench.draw(attacked, _prompts(TOKEN, options.pictures), 0))
    return {"named": called.count(options.word) / len(called), "called": called}


def _keep(pictures: Tensor, options: argparse.Namespace, memory: ConceptMemory | None) -> None:
    """A row for each thing, in a file beside the output."""
    import torch
    from PIL import Image

    rows = [torch.cat(list(row), dim=1) for row in pictures[: -len(PARAPHRASES)].split(options.pictures)]
    last = memory.concepts[-1] if memory is not None else None
    instead = "untouched"
    if last and not last.token:
        instead = f"{last.settings['erase']['instead'][0] or 'nothing'}-{last.method.replace(' ', '-')}"
    sheet = (torch.cat(rows) * 255).round().byte().numpy()
    Image.fromarray(sheet).save(options.output.with_name(f"unlearn-{options.word}-{instead}.png"))


def _tell(record: dict[str, Any]) -> None:
    named = ", ".join(f"{thing} {share:.0%}" for thing, share in record["named"].items())
    lines: Sequence[str] = [
        f"[unlearn] {record['run']}: {named}; paraphrases: {', '.join(record['paraphrases'])}",
        *record.get("told", ()),
        *([f"attack: {record['attack']}"] if "attack" in record else ()),
        *([f"learned before: {record['learned']}"] if "learned" in record else ()),
    ]
    print("\n  ".join(lines), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
