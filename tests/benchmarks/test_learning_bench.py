"""`bench learning`: what it asks for and how it sums up, without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.quality import __main__ as learning
from benchmarks.quality import pictures, report, streams
from benchmarks.quality.jobs import Job
from benchmarks.quality.prompts import COUNT, plain_prompts, prompts_for
from benchmarks.quality.variants import VARIANTS
from cns_core.methods import METHODS
from devtools.concept_folders import ConceptFolder
from devtools.staging import SHIPPED_CONCEPTS


def stage(learned: str, **scores: float) -> dict[str, Any]:
    """Of a made-up run; errors fall as scores rise."""
    return {
        "learned": learned,
        "fit": {name: 1 - score for name, score in scores.items()},
        "fit_of_class_word": dict.fromkeys(scores, 1.0),
        "drift": 0.25,
        "class_drift": dict.fromkeys(scores, 0.5),
        "scores": {name: {"score": score} for name, score in scores.items()},
    }


def test_sets_are_folders_of_pictures() -> None:
    for number in (1, 2, 3):
        folders = streams.folders_of_set(number)
        assert len(set(folders)) == 7
        assert all((SHIPPED_CONCEPTS / folder / "concept.json").is_file() for folder in folders)


@pytest.mark.parametrize("kind", ["subject", "style", "scene"])
def test_every_prompt_names_the_concept_and_the_plain_ones_do_not(kind: str) -> None:
    with_token = prompts_for(kind, "<my-thing>")
    plain = plain_prompts(ConceptFolder(Path(), "my-thing", "animal", kind))
    assert len(set(with_token)) == len(plain) == 8
    assert all(prompt.count("<my-thing>") == 1 for prompt in with_token)
    assert not any("<" in prompt for prompt in plain)
    if kind == "subject":
        assert plain[0] == "a photo of an animal on a beach"


def test_the_summary_tells_learning_from_forgetting() -> None:
    runs = []
    for first, left in ((0.8, 0.6), (1.0, 0.9)):
        stages = [stage("a", a=first), stage("b", a=first, b=0.9), stage("c", a=left, b=0.8, c=0.7)]
        runs.append({"method": "cns", "stream": ["a", "b", "c"], "stages": stages})
    fits, scores = (
        row.strip("| ").split(" | ") for row in report.summary(runs).splitlines() if row.startswith("| cns")
    )
    assert scores == [
        "cns",
        "2",
        "0.833 (0.800 to 0.867)",  # (0.8 + 0.9 + 0.7) / 3, (1 + 0.9 + 0.7) / 3
        "0.750 (0.700 to 0.800)",  # (0.6 + 0.8 + 0.7) / 3, (0.9 + 0.8 + 0.7) / 3
        "0.125 (0.100 to 0.150)",  # (0.2 + 0.1) / 2, (0.1 + 0.1) / 2
        "0.150 (0.100 to 0.200)",
    ]
    assert fits == [
        "cns",
        "2",
        "0.1667 (0.1333 to 0.2000)",
        "0.2500 (0.2000 to 0.3000)",
        "0.1250 (0.1000 to 0.1500)",
        # Of the way to errors of 0, 0.1 and 0.3: (0.6/1 + 0.8/0.9 + 0.7/0.7) / 3, (0.9/1 + 0.8/0.9 + 1) / 3
        "0.8796 (0.8296 to 0.9296)",
        "0.2500",
        "0.5000",
    ]


def test_a_stream_that_is_drawn_at_the_end_has_no_score_of_before() -> None:
    stages = [{**stage("a", a=0.9), "scores": {}}, stage("b", a=0.7, b=0.5)]
    rows = report.summary([{"method": "cns", "stream": ["a", "b"], "stages": stages}]).splitlines()
    assert rows[-1].startswith("| cns | 1 | not measured | 0.600")
    never = [{**one, "scores": {}} for one in stages]
    assert "score" not in report.summary([{"method": "cns", "stream": ["a", "b"], "stages": never}])


def test_concepts_that_were_learned_apart_are_joined_in_a_stage_of_its_own() -> None:
    joined = {**stage("", a=0.7, b=0.8), "joining_s": 12.0, "peak_mb": 500}
    del joined["learned"]
    costs = {"share_of_kv": 0.5, "bytes": 2000, "selection_s": 0.5, "training_s": 30.0, "peak_mb": 100}
    stages = [{**stage("a", a=0.9), "bytes": 1, **costs}, {**stage("b", b=0.9), **costs}, joined]
    record = {"method": "mix-of-show", "stream": ["a", "b"], "stages": stages}
    fits, scores = (row for row in report.summary([record]).splitlines() if row.startswith("| mix"))
    assert fits.startswith("| mix-of-show | 1 | 0.1000 | 0.2500 | 0.1500")
    assert scores.endswith("| 0.150 | 0.200 |")
    row = "| mix-of-show | 2 | 50.00% | 2,000 | 0.5 | 30 | 100 | 12.0 | 500 |"
    assert report.costs([record]).splitlines()[-1] == row


def test_what_is_learned_in_which_order() -> None:
    parse = learning.build_parser().parse_args
    assert learning.streams_of(parse(["--concepts", "panda", "teapot"])) == [["panda"], ["teapot"]]
    assert learning.streams_of(parse(["--concepts", "panda", "teapot", "--all"])) == [["panda", "teapot"]]
    assert learning.streams_of(parse(["--set", "2"])) == [streams.folders_of_set(2)]
    four = learning.streams_of(parse(["--four"]))
    assert len({name for stream in four for name in stream}) == 16


def test_a_finished_run_is_not_made_again(tmp_path: Path) -> None:
    made: list[str] = []

    def stages(job: Job) -> dict[str, Any]:
        made.append(job.values["method"])
        return {"stages": [stage("my-panda", **{"my-panda": 0.5})]}

    output, settings = tmp_path / "learning.jsonl", {"steps": 150}
    options = learning.build_parser().parse_args(["--concepts", "panda", "--output", str(output)])
    options.streams = learning.streams_of(options)
    learning.run(options, settings, stages)
    options.methods = ["cns", "all K/V"]
    results = learning.run(options, settings, stages)
    assert made == ["cns", "all K/V"] and [record["method"] for record in results] == ["cns", "all K/V"]
    assert [json.loads(line)["method"] for line in output.read_text().splitlines()] == ["cns", "all K/V"]
    learning.run(options, {"steps": 151}, stages)  # other settings are another run
    assert made == ["cns", "all K/V", "cns", "all K/V"]


def test_settings_of_other_methods_do_not_make_another_run(tmp_path: Path) -> None:
    made: list[str] = []

    def stages(job: Job) -> dict[str, Any]:
        made.append(job.values["method"])
        return {"stages": [stage("my-panda", **{"my-panda": 0.5})]}

    words = ["--concepts", "panda", "--output", str(tmp_path / "learning.jsonl")]
    options = learning.build_parser().parse_args([*words, "--methods", "cns", "directions"])
    options.streams = learning.streams_of(options)
    learning.run(options, {"neuron_lr": 1e-3, "floor": 0.1}, stages)
    learning.run(options, {"neuron_lr": 1e-3, "floor": 0.2}, stages)
    assert made == ["cns", "directions", "directions"]


def test_every_method_of_the_registry_can_be_measured() -> None:
    assert set(METHODS) < set(VARIANTS)
    wanted = {"neuron_lr": 1e-3, "weight_lr": 2e-3, "keep_earlier": 0.5, "budget_percent": 17.0, "seed": 4}
    assert VARIANTS["cns"].training(wanted).keep_earlier == 0.5
    assert VARIANTS["cns without L_reg"].training(wanted).keep_earlier == 0.0
    assert VARIANTS["all K/V"].training(wanted).weight_lr == 2e-3
    assert VARIANTS["random entries"].selection(wanted).seed == 4


def test_what_was_learned_alone_is_listed_by_concept() -> None:
    figures = {"class_word": 0.2, "clip_i": 0.7, "real": 0.9, "score": 5 / 7}
    alone = {**stage("my-panda", **{"my-panda": 0.5}), "scores": {"my-panda": figures}}
    record = {"method": "cns", "seed": 0, "stream": ["panda"], "stages": [alone], "draw": streams.EACH}
    assert report.summary([record]).splitlines()[-1] == (
        "| my-panda | cns | 0 | 0.200 | 0.700 | 0.900 | 0.714 |"
    )


def test_sheets_of_what_was_drawn(tmp_path: Path) -> None:
    kept = pictures.kept_in(tmp_path / "learning.jsonl")
    kept.mkdir()

    def drawn(name: str, colour: tuple[int, int, int]) -> None:
        Image.new("RGB", (8 * COUNT, 8), colour).save(kept / name)

    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    drawn(pictures.plain_name("my-panda"), red)
    drawn(pictures.kept_name("my-panda", "cns", 0, 1), green)
    drawn(pictures.kept_name("my-panda", "cns", 0, 2), blue)
    drawn(pictures.kept_name("my-reef", "cns", 0, 2), red)
    alone = {
        "method": "cns",
        "seed": 0,
        "stream": ["panda"],
        "draw": streams.EACH,
        "stages": [{"learned": "my-panda", "scores": {}}],
    }
    second = {"learned": "my-reef", "scores": {}}
    both = {**alone, "stream": ["panda", "reef-place"], "stages": [*alone["stages"], second]}
    never = {**both, "draw": streams.NEVER}
    records = [alone, both, never]
    first, second = pictures.write_sheets(records, tmp_path / "learning.jsonl", SHIPPED_CONCEPTS)
    with Image.open(first) as sheet:  # given, class word, learned
        assert sheet.height == 8 and _near(sheet.getpixel((8 * 3 + 8 + 4, 4)), red)
        assert _near(sheet.getpixel((sheet.width - 4, 4)), green)
    with Image.open(second) as sheet:  # one row for each concept, from the stage when it was learned
        assert sheet.height == 16 and _near(sheet.getpixel((4, 4)), green)
        assert _near(sheet.getpixel((sheet.width - 4, 4)), blue)
        assert _near(sheet.getpixel((4, 12)), (255, 255, 255))
        assert _near(sheet.getpixel((sheet.width - 4, 12)), red)


def test_a_stream_that_is_drawn_at_the_end_shows_what_was_given_too(tmp_path: Path) -> None:
    kept = pictures.kept_in(tmp_path / "learning.jsonl")
    kept.mkdir()
    names = {"my-panda": "panda", "my-reef": "reef-place"}
    for name in names:
        Image.new("RGB", (8 * COUNT, 8)).save(kept / pictures.plain_name(name))
        Image.new("RGB", (8 * COUNT, 8), (0, 0, 255)).save(kept / pictures.kept_name(name, "cns", 0, 2))
    stages = [{"learned": name, "scores": {}} for name in names]
    stream = {"stream": list(names.values()), "draw": streams.AT_THE_END, "stages": stages}
    record = {"method": "cns", "seed": 0, **stream}
    (path,) = pictures.write_sheets([record], tmp_path / "learning.jsonl", SHIPPED_CONCEPTS)
    with Image.open(path) as sheet:
        assert path.name == "sheet-my-panda-to-my-reef-cns.jpg" and sheet.height == 8
        assert _near(sheet.getpixel((sheet.width - 4, 4)), (0, 0, 255))


def _near(found: Any, wanted: tuple[int, int, int]) -> bool:
    return all(abs(one - other) < 40 for one, other in zip(found, wanted, strict=True))


def test_no_concept_is_missing_from_an_odd_number(tmp_path: Path) -> None:
    names = {"my-panda": "panda", "my-reef": "reef-place", "my-teapot": "teapot"}
    for name in names:
        for file in (pictures.plain_name(name), pictures.kept_name(name, "cns", 0, 1)):
            Image.new("RGB", (8 * COUNT, 8)).save(tmp_path / file)
    given = [(name, SHIPPED_CONCEPTS / folder) for name, folder in names.items()]
    assert pictures.given_and_learned(tmp_path, given, "cns", 1).height == 2 * 8


def test_runs_that_were_made_on_another_machine_have_no_sheet(tmp_path: Path) -> None:
    stages = [{"learned": "my-panda", "scores": {"my-panda": {"score": 1.0}}}]
    record = {"method": "cns", "seed": 0, "stream": ["panda"], "draw": streams.EACH, "stages": stages}
    assert pictures.write_sheets([record], tmp_path / "learning.jsonl", SHIPPED_CONCEPTS) == []
