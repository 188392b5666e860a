"""The benches' own way to learn, on the small base."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.quality.variants import SETTINGS
from devtools.staging import JUDGE, expanded_base


@pytest.mark.parametrize(
    ("method", "least", "most"), [("random entries", 0.1, 0.2), ("lora", 1.0, float("inf"))]
)
def test_what_may_move_is_counted_beyond_keys_and_values_too(
    comfy: ModuleType, tmp_path: Path, method: str, least: float, most: float
) -> None:
    import torch

    from benchmarks.quality.bench import Bench, Options
    from benchmarks.quality.streams import every_concept

    settings = {name: default for name, default, _ in SETTINGS} | {"steps": 1, "prior_weight": 0.0}
    bench = Bench(Options(expanded_base(), JUDGE, 64, 3.0, tmp_path / "runs.jsonl", settings))
    folder = next(one for one in every_concept() if one.name == "my-panda")
    with torch.inference_mode():
        memory, facts = bench.learn(bench.concept(folder), None, method, 0)
    total = memory.layout.total
    assert least < facts["share_of_kv"] < most
    assert facts["neurons"] == pytest.approx(facts["share_of_kv"] * total, abs=1) and facts["bytes"] > 1000


def test_pictures_of_other_prompts_are_drawn_once(
    comfy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from benchmarks.quality import other_pictures as drawn_once
    from benchmarks.quality.bench import Bench, Options

    base = expanded_base()
    monkeypatch.setattr(drawn_once, "PAIRS", 2)
    monkeypatch.setattr(drawn_once, "HOST_BASE", tmp_path)
    with torch.inference_mode():
        loaded = Bench(Options(base, JUDGE, 64, 3.0, tmp_path / "runs.jsonl", {})).loaded
        prompts, latents = drawn_once.other_pictures(loaded, base, 64, 3.0)
        monkeypatch.delattr(drawn_once, "draw")
        again = drawn_once.other_pictures(loaded, base, 64, 3.0)
    assert again[0] == prompts and torch.equal(again[1], latents)
    assert len(prompts) == len(latents) == 2 and latents.std() > 0.1
