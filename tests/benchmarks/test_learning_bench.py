"""`bench learning`: what it asks for and how it sums up, without a model."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import learning
import learning_report
from PIL import Image


def stage(learned: str, **scores: float) -> dict[str, Any]:
    return {"learned": learned, "scores": {name: {"score": score} for name, score in scores.items()}}


def test_sets_are_folders_of_pictures() -> None:
    for number in (1, 2, 3):
        folders = learning.folders_of_set(number)
        assert len(set(folders)) == 7
        assert all((learning.IMAGES / folder / "concept.json").is_file() for folder in folders)


@pytest.mark.parametrize("kind", ["subject", "style", "scene"])
def test_every_prompt_names_the_concept_and_the_plain_ones_do_not(kind: str) -> None:
    with_token = learning.prompts_for(kind, "<my-thing>")
    plain = learning.prompts_for(kind, "animal" if kind == "subject" else "")
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
    cells = learning_report.summary(runs).splitlines()[-1].strip("| ").split(" | ")
    assert cells == [
        "cns",
        "2",
        "0.833 (0.80 to 0.87)",  # (0.8 + 0.9 + 0.7) / 3, (1 + 0.9 + 0.7) / 3
        "0.750 (0.70 to 0.80)",  # (0.6 + 0.8 + 0.7) / 3, (0.9 + 0.8 + 0.7) / 3
        "0.125 (0.10 to 0.15)",  # (0.2 + 0.1) / 2, (0.1 + 0.1) / 2
        "0.150 (0.10 to 0.20)",
    ]


def test_a_finished_run_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def stages(_bench: Any, key: dict[str, Any]) -> list[dict[str, Any]]:
        made.append(key["method"])
        return [stage("my-panda", **{"my-panda": 0.5})]

    monkeypatch.setattr(learning, "_stages", stages)
    words = ["--checkpoint", "base.safetensors", "--clip-model", "judge", "--concepts", "panda"]
    output = tmp_path / "learning.jsonl"
    options = learning.build_parser().parse_args([*words, "--output", str(output)])
    bench = argparse.Namespace()
    learning.run(bench, options)
    options.methods = ["cns", "all"]
    results = learning.run(bench, options)
    assert made == ["cns", "all"] and [record["method"] for record in results] == ["cns", "all"]
    assert [json.loads(line)["method"] for line in output.read_text().splitlines()] == ["cns", "all"]
    options.steps += 1  # other settings are another run
    learning.run(bench, options)
    assert made == ["cns", "all", "cns", "all"]


def test_what_was_learned_alone_is_listed_by_concept() -> None:
    figures = {"class_word": 0.2, "clip_i": 0.7, "real": 0.9, "score": 5 / 7}
    alone = {"learned": "my-panda", "scores": {"my-panda": figures}}
    record = {"method": "cns", "seed": 0, "stream": ["panda"], "stages": [alone]}
    assert learning_report.summary([record]).splitlines()[-1] == (
        "| my-panda | cns | 0 | 0.200 | 0.700 | 0.900 | 0.714 |"
    )


def test_sheets_of_what_was_drawn(tmp_path: Path) -> None:
    kept = learning_report.kept_in(tmp_path / "learning.jsonl")
    kept.mkdir()

    def drawn(name: str, colour: tuple[int, int, int]) -> None:
        Image.new("RGB", (8 * learning_report.PROMPTS, 8), colour).save(kept / name)

    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    drawn(learning_report.plain_name("my-panda"), red)
    drawn(learning_report.kept_name("my-panda", "cns", 0, 1), green)
    drawn(learning_report.kept_name("my-panda", "cns", 0, 2), blue)
    drawn(learning_report.kept_name("my-reef", "cns", 0, 2), red)
    alone = {
        "method": "cns",
        "seed": 0,
        "stream": ["panda"],
        "stages": [{"learned": "my-panda", "scores": {}}],
    }
    both = {**alone, "stream": ["panda", "reef-place"], "stages": [*alone["stages"], {"learned": "my-reef"}]}
    records = [alone, both]
    first, second = learning_report.write_sheets(records, tmp_path / "learning.jsonl", learning.IMAGES)
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
        for file in (learning_report.plain_name(name), learning_report.kept_name(name, "cns", 0, 1)):
            Image.new("RGB", (8 * learning_report.PROMPTS, 8)).save(tmp_path / file)
    given = [(name, learning.IMAGES / folder) for name, folder in names.items()]
    assert learning_report.alone_sheet(tmp_path, given, "cns", 0).height == 2 * 8
