"""`bench learning`: what it asks for and how it sums up, without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.quality import __main__ as learning
from benchmarks.quality import report
from benchmarks.quality.prompts import COUNT, plain_prompts, prompts_for
from benchmarks.quality.variants import VARIANTS
from cns_core.methods import METHODS
from devtools.concept_folders import ConceptFolder
from devtools.staging import SHIPPED_CONCEPTS


def stage(learned: str, **scores: float) -> dict[str, Any]:
    return {"learned": learned, "scores": {name: {"score": score} for name, score in scores.items()}}


def test_sets_are_folders_of_pictures() -> None:
    for number in (1, 2, 3):
        folders = learning.folders_of_set(number)
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
    cells = report.summary(runs).splitlines()[-1].strip("| ").split(" | ")
    assert cells == [
        "cns",
        "2",
        "0.833 (0.80 to 0.87)",  # (0.8 + 0.9 + 0.7) / 3, (1 + 0.9 + 0.7) / 3
        "0.750 (0.70 to 0.80)",  # (0.6 + 0.8 + 0.7) / 3, (0.9 + 0.8 + 0.7) / 3
        "0.125 (0.10 to 0.15)",  # (0.2 + 0.1) / 2, (0.1 + 0.1) / 2
        "0.150 (0.10 to 0.20)",
    ]


def test_a_finished_run_is_not_made_again(tmp_path: Path) -> None:
    made: list[str] = []

    def stages(key: dict[str, Any]) -> list[dict[str, Any]]:
        made.append(key["method"])
        return [stage("my-panda", **{"my-panda": 0.5})]

    output, settings = tmp_path / "learning.jsonl", {"steps": 150}
    options = learning.build_parser().parse_args(["--concepts", "panda", "--output", str(output)])
    learning.run(options, settings, stages)
    options.methods = ["cns", "all K/V"]
    results = learning.run(options, settings, stages)
    assert made == ["cns", "all K/V"] and [record["method"] for record in results] == ["cns", "all K/V"]
    assert [json.loads(line)["method"] for line in output.read_text().splitlines()] == ["cns", "all K/V"]
    learning.run(options, {"steps": 151}, stages)  # other settings are another run
    assert made == ["cns", "all K/V", "cns", "all K/V"]


def test_every_method_of_the_registry_can_be_measured() -> None:
    assert set(METHODS) < set(VARIANTS)
    wanted = {"neuron_lr": 1e-3, "weight_lr": 2e-3, "keep_earlier": 0.5, "budget_percent": 17.0, "seed": 4}
    assert VARIANTS["cns"].training(wanted).keep_earlier == 0.5
    assert VARIANTS["cns without L_reg"].training(wanted).keep_earlier == 0.0
    assert VARIANTS["all K/V"].training(wanted).weight_lr == 2e-3
    assert VARIANTS["random entries"].selection(wanted).seed == 4


def test_what_was_learned_alone_is_listed_by_concept() -> None:
    figures = {"class_word": 0.2, "clip_i": 0.7, "real": 0.9, "score": 5 / 7}
    alone = {"learned": "my-panda", "scores": {"my-panda": figures}}
    record = {"method": "cns", "seed": 0, "stream": ["panda"], "stages": [alone]}
    assert report.summary([record]).splitlines()[-1] == (
        "| my-panda | cns | 0 | 0.200 | 0.700 | 0.900 | 0.714 |"
    )


def test_sheets_of_what_was_drawn(tmp_path: Path) -> None:
    kept = report.kept_in(tmp_path / "learning.jsonl")
    kept.mkdir()

    def drawn(name: str, colour: tuple[int, int, int]) -> None:
        Image.new("RGB", (8 * COUNT, 8), colour).save(kept / name)

    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    drawn(report.plain_name("my-panda"), red)
    drawn(report.kept_name("my-panda", "cns", 0, 1), green)
    drawn(report.kept_name("my-panda", "cns", 0, 2), blue)
    drawn(report.kept_name("my-reef", "cns", 0, 2), red)
    alone = {
        "method": "cns",
        "seed": 0,
        "stream": ["panda"],
        "stages": [{"learned": "my-panda", "scores": {}}],
    }
    both = {**alone, "stream": ["panda", "reef-place"], "stages": [*alone["stages"], {"learned": "my-reef"}]}
    records = [alone, both]
    first, second = report.write_sheets(records, tmp_path / "learning.jsonl", SHIPPED_CONCEPTS)
    with Image.open(first) as sheet:  # given, class word, learned
        assert sheet.height == 8 and _near(sheet.getpixel((8 * 3 + 8 + 4, 4)), red)
        assert _near(sheet.getpixel((sheet.width - 4, 4)), green)
    with Image.open(second) as sheet:  # one row for each concept, from the stage when it was learned
        assert sheet.height == 16 and _near(sheet.getpixel((4, 4)), green)
        assert _near(sheet.getpixel((sheet.width - 4, 4)), blue)
        assert _near(sheet.getpixel((4, 12)), (255, 255, 255))
        assert _near(sheet.getpixel((sheet.width - 4, 12)), red)


def _near(found: Any, wanted: tuple[int, int, int]) -> bool:
    return all(abs(one - other) < 40 for one, other in zip(found, wanted, strict=True))


def test_no_concept_is_missing_from_an_odd_number(tmp_path: Path) -> None:
    names = {"my-panda": "panda", "my-reef": "reef-place", "my-teapot": "teapot"}
    for name in names:
        for file in (report.plain_name(name), report.kept_name(name, "cns", 0, 1)):
            Image.new("RGB", (8 * COUNT, 8)).save(tmp_path / file)
    given = [(name, SHIPPED_CONCEPTS / folder) for name, folder in names.items()]
    assert report.alone_sheet(tmp_path, given, "cns", 0).height == 2 * 8
