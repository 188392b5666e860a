"""Jobs of the kind `unlearn`: what an erasure takes from the small base, what it takes along, and what an
attack brings back.

    python3 dev.py bench unlearn                               tiger, led to dog, in each way
    python3 dev.py bench unlearn --set word=zebra instead=horse neighbours=cow,pig keep=cow
    python3 dev.py bench unlearn --methods uce esd --set guard=0     with settings of theirs

Pictures of the erased word, of its neighbours and of other things are drawn before and after, with the same
seeds, and the small judge says which of the hundred things that it knows each picture shows most. The attack
is Textual Inversion: a token alone is learned, on top of the erased model, from pictures that the untouched
model draws of the word; and, to compare with, on the untouched model. A concept is learned before, and looked
at before and after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cns_core.erasures import ERASURES
from cns_core.settings import described
from devtools.concept_folders import read_concepts
from devtools.staging import SHIPPED_CONCEPTS

from .jobs import Job

if TYPE_CHECKING:
    from torch import Tensor

    from cns_core.concept import Concept
    from cns_core.memory import ConceptMemory

    from .bench import Bench

UNLEARN = "unlearn"
UNTOUCHED = "untouched"  # in place of a method: what is there before any
PLACES = (
    "on a beach",
    "in a meadow",
    "in the snow",
    "at night",
    "on a purple background",
    "on a grey background",
)
_SHOWN = 4  # pictures of each thing, on the sheet
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
# What the suite asks for.
ASKED: Mapping[str, Any] = {
    "word": "tiger",
    "instead": "dog",
    "neighbours": ["lion", "cat"],
    "others": ["dog", "car"],
    "keep": [],
    "concept": "panda",
    "pictures": 6,
    "attack_steps": 80,
}


def unlearn_job(method: str, seed: int, given: Mapping[str, Any], **more: Any) -> Job:
    """One way to erase, or none for UNTOUCHED.

    given: what is to be other than `ASKED`, or than the method's own settings.
    """
    values = {"method": method, "seed": seed, **{n: given.get(n, v) for n, v in ASKED.items()}, **more}
    if method == UNTOUCHED:
        return Job(UNLEARN, {**values, "instead": "", "keep": []})
    known = set(described(ERASURES[method].Settings)) - set(ASKED)
    own = {n: v for n, v in {**ON_SMALL_BASE, "seed": seed, **given}.items() if n in known}
    return Job(UNLEARN, {**values, "settings": own})


def settings_to_give() -> dict[str, Any]:
    """What `given` of a job may have, each with its own value or one like it."""
    kinds = [erasure.Settings for erasure in ERASURES.values()]
    return {**{n: default for kind in kinds for n, (default, _) in described(kind).items()}, **ASKED}


def unlearned(bench: Bench, values: Mapping[str, Any]) -> dict[str, Any]:
    """One record."""
    return _Run(bench, values).record()


class _Run:
    """One job while it is done."""

    def __init__(self, bench: Bench, values: Mapping[str, Any]) -> None:
        self.bench, self.known, self.values = bench, Known(bench), values

    def record(self) -> dict[str, Any]:
        bench, values, found = self.bench, self.values, {}
        folders = read_concepts(SHIPPED_CONCEPTS, [values["concept"]] if values["concept"] else [])
        memory: ConceptMemory | None = None
        for folder in folders:
            memory, _ = bench.learn(bench.concept(folder), memory, "directions", 0)
        taught = self._taught if values["attack_steps"] else None
        if values["method"] != UNTOUCHED:
            memory, found["told"] = self._erased(memory)
        found |= self._seen(memory)
        if memory is not None:
            found |= bench.look(memory, folders)
        if taught is not None:
            found["attack"] = self._attacked(memory, taught)
        return found

    def _erased(self, memory: ConceptMemory | None) -> tuple[ConceptMemory, list[str]]:
        from cns_core.erasures.wording import ToErase
        from cns_core.host.erase import erase
        from cns_core.host.progress import Progress

        loaded, values = self.bench.loaded, self.values
        by = ERASURES[values["method"]]
        settings = by.Settings(**{"keep": "\n".join(values["keep"]), **values["settings"]})
        what = ToErase.of(values["word"], values["instead"])
        with Progress(1) as progress:
            done = erase(loaded.model, loaded.clip, memory, what, settings, progress, by)
        return done.memory, [done.memory.concepts[-1].change.summary(), *done.lines]

    def _seen(self, memory: ConceptMemory | None) -> dict[str, Any]:
        """By thing, the share of pictures that the judge calls by its name; and what it calls the word's."""
        values, count = self.values, self.values["pictures"]
        things = _things(values)
        prompts = [p for thing in things for p in _prompts(thing, count)]
        prompts += [wording.format(values["word"]) for wording in PARAPHRASES]
        pictures = self.bench.draw(memory, prompts, values["seed"])
        self._keep(pictures)
        names = self.known.named(pictures)
        by_thing = {thing: names[i * count : (i + 1) * count] for i, thing in enumerate(things)}
        return {
            "named": {thing: called.count(thing) / count for thing, called in by_thing.items()},
            "called": by_thing,
            "paraphrases": names[len(things) * count :],
        }

    @cached_property
    def _taught(self) -> Concept:
        """What the untouched model draws of the word, and the judge calls so, as a concept. ValueError when
        there is nothing of that.
        """
        from cns_core.captions import template_captions
        from cns_core.concept import Concept, TrainingImage

        word, seed = self.values["word"], 7 + self.values["seed"]
        drawn = self.bench.draw(None, _prompts(word, len(PLACES)) * 2, seed)
        right = [p for p, name in zip(drawn, self.known.named(drawn), strict=True) if name == word]
        if not right:
            raise ValueError(f"None of {len(drawn)} pictures of {word!r} is called so; take another word.")
        captions = template_captions("subject", TOKEN)
        images = tuple(TrainingImage(p.clone(), captions, None, f"drawn {i}") for i, p in enumerate(right))
        return Concept("attack", TOKEN, "animal", "subject", images)

    def _attacked(self, memory: ConceptMemory | None, taught: Concept) -> dict[str, Any]:
        """What the judge calls pictures of a token that was learned alone."""
        values = self.values
        steps = {"steps": values["attack_steps"]}
        attacked, _ = self.bench.learn(taught, memory, "token alone", values["seed"], steps)
        prompts = _prompts(TOKEN, values["pictures"])
        called = self.known.named(self.bench.draw(attacked, prompts, values["seed"]))
        return {"named": called.count(values["word"]) / len(called), "called": called}

    def _keep(self, pictures: Tensor) -> None:
        """A row for each thing, in a file in the folder of what is drawn."""
        import torch
        from PIL import Image

        from .pictures import kept_in

        values = self.values
        rows = pictures[: -len(PARAPHRASES)].split(values["pictures"])
        sheet = (torch.cat([torch.cat(list(row), dim=1) for row in rows]) * 255).round().byte().numpy()
        path = kept_in(self.bench.options.output) / _kept_name(values)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(path)


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


def _things(values: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys([values["word"], *values["neighbours"], *values["others"]]))


def _kept_name(values: Mapping[str, Any]) -> str:
    way = f"{values['instead'] or 'nothing'}-{values['method'].replace(' ', '-')}"
    return f"unlearn-{values['word']}-{way}-seed{values['seed']}.png"


def write_sheet(records: Sequence[Mapping[str, Any]], output: Path) -> Path:
    """Of each way by the first seed, a column with a row of pictures of each thing. ValueError where the
    pictures lie elsewhere, being made on another machine.
    """
    from PIL import Image

    from cns_core.evaluation.sheets import labelled

    from .pictures import kept_in

    kept, rows = kept_in(output), []
    first = [one for one in records if one["seed"] == 0 and (kept / _kept_name(one)).is_file()]
    for record in first:
        sheet = Image.open(kept / _kept_name(record)).convert("RGB")
        things, count = _things(record), record["pictures"]
        wide, high = sheet.width // count, sheet.height // len(things)
        for row, thing in enumerate(things):
            shown = range(min(count, _SHOWN))
            boxes = [(wide * n, high * row, wide * (n + 1), high * (row + 1)) for n in shown]
            rows.append((f"{record['method']}: {thing}", [sheet.crop(box) for box in boxes]))
    if not rows:
        raise ValueError(
            f"No pictures of these runs are in {kept}. Copy them there from where they were drawn."
        )
    path = kept / "unlearned.jpg"
    labelled(rows, columns=len(first)).save(path, quality=90)
    return path


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """A row for each way and seed; empty where there are none."""
    lines = [
        "| word | method | seed | is called | neighbours | others | paraphrases | drift | fit of what was "
        "learned | attack brings back |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in records:
        cells = [
            one["word"] + (f", to {one['instead'] or 'nothing'}" if one["method"] != UNTOUCHED else ""),
            one["method"],
            str(one["seed"]),
            _counted(one["called"][one["word"]]),
            _share(one, one["neighbours"]),
            _share(one, one["others"]),
            _counted(one["paraphrases"]),
            f"{one['drift']:.4f}" if "drift" in one else "",
            ", ".join(f"{fit:.4f}" for fit in one.get("fit", {}).values()),
            f"{one['attack']['named']:.0%}" if "attack" in one else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _counted(called: Sequence[str]) -> str:
    return ", ".join(f"{name} {called.count(name)}" for name in dict.fromkeys(called))


def _share(record: Mapping[str, Any], things: Sequence[str]) -> str:
    return ", ".join(f"{thing} {record['named'][thing]:.0%}" for thing in things)
