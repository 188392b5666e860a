"""Jobs of the kind `learn`: concepts learned one after another, and looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from devtools.concept_folders import ConceptFolder, read_concepts
from devtools.staging import SHIPPED_CONCEPTS
from small_base.world.sets import CONCEPTS_IN, SETS_FOLDER, read_set

from .jobs import LEARN, Job
from .prompts import in_words
from .variants import VARIANTS

if TYPE_CHECKING:
    from cns_core.memory import ConceptMemory

    from .bench import Bench

# Streams of four kinds of concepts each.
FOURS = (
    ("panda", "teapot", "parrot", "unicorn"),
    ("poodle", "pop-print-style", "reef-place", "backpack"),
    ("ladybug", "volcano-place", "racing-car", "blueprint-style"),
    ("skunk", "nesting-dolls", "openmoji-style", "roller-skate"),
)
EACH, AT_THE_END, NEVER = "after each", "at the end", "never"  # when concepts are drawn and judged
PICTURES = 2  # of each prompt of an ordered set


def stream_job(
    stream: Sequence[str], method: str, seed: int, draw: str, settings: Mapping[str, Any], **more: Any
) -> Job:
    """Learn folders of concepts in this order by a variant.

    settings: of all variants, by name; those that decide something here become part of the job. more: what
    is known of the base, and `prompts_of`, the number of the set whose prompts are drawn at the end.
    """
    values = {"stream": list(stream), "method": method, "seed": seed, "draw": draw, **more}
    return Job(LEARN, {**values, **VARIANTS[method].settings(settings)})


def learned(bench: Bench, values: Mapping[str, Any]) -> dict[str, Any]:
    """Learn the concepts of one job in order, and look at all learned so far after each."""
    folders = read_concepts(SHIPPED_CONCEPTS, values["stream"])
    joined = VARIANTS[values["method"]].joined
    stages = _apart(bench, values, folders, joined) if joined else _one_after_another(bench, values, folders)
    found: list[dict[str, Any]] = []
    last: ConceptMemory | None = None
    for last, stage in stages:  # noqa: B007 - what is wanted is the last one
        found.append(stage)
        _tell(values["method"], values["seed"], stage)
    if last is None or "prompts_of" not in values:
        return {"stages": found}
    return {"stages": found, "set_prompts": set_prompts(bench, last, values["prompts_of"], values["seed"])}


Stages = Iterator[tuple["ConceptMemory", dict[str, Any]]]


def _one_after_another(bench: Bench, values: Mapping[str, Any], folders: Sequence[ConceptFolder]) -> Stages:
    memory: ConceptMemory | None = None
    for index, folder in enumerate(folders):
        memory, facts = bench.learn(bench.concept(folder), memory, values["method"], values["seed"], values)
        so_far, last = folders[: index + 1], index + 1 == len(folders)
        drawn = so_far if values["draw"] == EACH or (last and values["draw"] == AT_THE_END) else []
        yield memory, {"learned": folder.name, **facts, **_looked_at(bench, values, memory, so_far, drawn)}


def _apart(bench: Bench, values: Mapping[str, Any], folders: Sequence[ConceptFolder], rule: str) -> Stages:
    """A stage for each concept, learned alone, and one of all of them joined, which learns nothing more."""
    memories = []
    for folder in folders:
        memory, facts = bench.learn(bench.concept(folder), None, values["method"], values["seed"], values)
        memories.append(memory)
        yield memory, {"learned": folder.name, **facts, **_looked_at(bench, values, memory, [folder], [])}
    joined, facts = bench.join(memories, rule)
    drawn = [] if values["draw"] == NEVER else list(folders)
    yield joined, {**facts, **_looked_at(bench, values, joined, folders, drawn)}


def _looked_at(
    bench: Bench,
    values: Mapping[str, Any],
    memory: ConceptMemory,
    folders: Sequence[ConceptFolder],
    drawn: Sequence[ConceptFolder],
) -> dict[str, Any]:
    """What is measured of these concepts, some of them by drawing."""
    scores = {}
    for one in drawn:
        others = [other for other in folders if other is not one and other.kind == one.kind]
        scores[one.name] = bench.score(one, memory, values["method"], values["seed"], others)
    return {**bench.look(memory, folders), "scores": scores}


def set_prompts(bench: Bench, memory: ConceptMemory, number: int, seed: int) -> dict[str, Any]:
    """The prompts of an ordered set, with one, two and three concepts in them, drawn and judged."""
    known = {f"<{folder.name}>": folder for folder in every_concept()}
    groups, found = read_set(SETS_FOLDER / f"set{number}.json"), {}
    for group in CONCEPTS_IN:
        prompts = [prompt for prompt in groups.prompts[group] for _ in range(PICTURES)]
        shown = [[known[f"<{one.name}>"] for one in groups.concepts_in(prompt)] for prompt in prompts]
        plain = [in_words(prompt, folders) for prompt, folders in zip(prompts, shown, strict=True)]
        drawn = bench.draw(memory, prompts, seed)
        found[group] = bench.judge.together(drawn, prompts, plain, shown)
    return found


def folders_of_set(number: int) -> list[str]:
    """The folders of an ordered set's concepts, which the set calls by their names."""
    folders = {folder.name: folder.folder.name for folder in every_concept()}
    return [folders[one.name] for one in read_set(SETS_FOLDER / f"set{number}.json").concepts]


def every_concept() -> list[ConceptFolder]:
    """All that are shipped, by the names of their folders."""
    return read_concepts(SHIPPED_CONCEPTS)


def _tell(method: str, seed: int, stage: Mapping[str, Any]) -> None:
    fits = ", ".join(f"{name} {fit:.4f}" for name, fit in stage["fit"].items())
    values = [score["score"] for score in stage["scores"].values()]
    shown = ", ".join("no scale" if value is None else f"{value:.2f}" for value in values) or "not drawn"
    print(
        f"[learning] {method}, seed {seed}, after {stage.get('learned', 'joining')}: fit {fits}; "
        f"drift {stage['drift']:.4f}; scores {shown}",
        flush=True,
    )
