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
    stages = [stage("a", a=0.8), stage("b", a=0.6, b=0.9)]
    lines = learning.summary([{"method": "cns", "stages": stages}]).splitlines()
    # learned (0.8 + 0.9) / 2, at the end (0.6 + 0.9) / 2, the first lost 0.8 - 0.6
    assert lines[-1] == "| cns | 1 | 0.850 | 0.750 | 0.200 |"


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
