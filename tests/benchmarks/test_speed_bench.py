"""`bench speed`: what it makes of its records, without a model."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.speed.__main__ import best_of_each
from benchmarks.speed.bars import FLOOR, NATIVE, OURS, TWENTIETH, Verdict, held_against
from benchmarks.speed.report import text, write_report


def record(what: str, model: str = "small", **numbers: Any) -> dict[str, Any]:
    shared = {"pixels": 128, "batch": 2, "dtype": "bfloat16", "device": "a machine", "torch": "2"}
    return {"what": what, "model": model, **shared, **numbers}


def loop(what: str, seconds: float, megabytes: float = 100.0) -> dict[str, Any]:
    return record(what, median_s=seconds, least_s=seconds, most_s=seconds, peak_mb=megabytes)


RECORDS = [
    loop(FLOOR, 1.0),
    loop(OURS, 1.2),
    loop(TWENTIETH, 1.2, 104),
    loop(NATIVE, 2.0),
    record("keeping", mb_a_concept=7.0),
    record("concepts", points=[{"concepts": 1, "apply_s": 0.5}, {"concepts": 2, "apply_s": 0.75}]),
]


def test_figures_are_held_against_what_is_asked() -> None:
    found = {bar.what: (bar.found, bar.most, bar.met) for bar in held_against(RECORDS, "small")}
    assert found == {
        "training step without prior / bare forward and backward": (1.2, 1.10, False),
        "training step without prior / TrainLoraNode": (0.6, 0.75, True),
        "training step of concept 20 / concept 1": (1.0, 1.05, True),
        "training memory of concept 20 / concept 1": (1.04, 1.05, True),
    }


@pytest.mark.parametrize(("ratio", "clone", "met"), [(1.02, 0.97, True), (1.02, 1.01, False), (0.9, 1, True)])
def test_drawing_may_differ_as_much_as_a_clone_of_the_plain_model(ratio, clone, met) -> None:
    records = [record("drawing", ratio=ratio, ratio_of_a_clone=clone)]
    assert [bar.met for bar in held_against(records, "small")] == [met]


def test_what_was_measured_in_turns_comes_before_what_was_not() -> None:
    bar, *_ = held_against([*RECORDS, record("over the floor", over_ratio=1.25)], "small")
    assert bar.found == 1.25 and not bar.met


def test_the_size_of_a_file_is_asked_of_full_size_models() -> None:
    records = [record("keeping", "sd15", mb_a_concept=7.0)]
    assert held_against(records, "sd15") == [Verdict("MB of file per concept", 7.0, 3.2, False)]
    assert held_against([record("keeping", mb_a_concept=7.0)], "small") == []


def test_a_gpu_has_bars_of_its_own() -> None:
    run = record("steps", "sd15", points=[{"steps": 475, "so_far_s": 39.0}, {"steps": 500, "so_far_s": 41.0}])
    run["peak_in_all_mb"] = 7 * 1024.0
    assert held_against([{**run, "device": "2 CPU cores"}], "sd15") == []
    assert held_against([{**run, "device": "some GPU"}], "sd15") == [
        Verdict("seconds for 500 steps", 41.0, 40.0, False),
        Verdict("GB while training", 7.0, 8.0, True),
    ]


def test_tables_tell_what_missed_its_bar() -> None:
    lines = text(RECORDS).splitlines()
    assert f"| {OURS} | 1.200 | 1.200 - 1.200 | 1.20 | 0.60 | 100 |" in lines
    assert "| training step without prior / bare forward and backward | 1.20 | 1.1 | **no** |" in lines
    assert "| training step without prior / TrainLoraNode | 0.60 | 0.75 | yes |" in lines
    assert "| 2 | 0.750 |" in lines


def test_of_each_loop_the_fastest_run_counts_and_of_all_else_the_last() -> None:
    runs = [
        record("keeping", load_s=1.0),
        loop(OURS, 2.0),
        loop(FLOOR, 1.0),
        loop(FLOOR, 1.5),
        loop(OURS, 1.2),
        record("keeping", load_s=2.0),
        {**loop(OURS, 0.5), "device": "another machine"},
    ]
    best = best_of_each(map(json.dumps, runs))
    assert [(r["what"], r.get("median_s", r.get("load_s"))) for r in best] == [
        (FLOOR, 1.0),
        (OURS, 1.2),
        (OURS, 0.5),
        ("keeping", 2.0),
    ]


def test_what_was_measured_otherwise_stands_by_itself() -> None:
    larger = [{**one, "pixels": 512} for one in (loop(FLOOR, 4.0), loop(OURS, 5.0))]
    written = text([*RECORDS, *larger])
    assert written.count("## small, 128 px") == written.count("## small, 512 px") == 1
    assert f"| {OURS} | 5.000 | 5.000 - 5.000 | 1.25 |  | 100 |" in written


def test_a_page_is_written_anew_below_what_a_person_wrote(tmp_path: Path) -> None:
    page = tmp_path / "speed.md"
    page.write_text("# Speed\n\nHow to read it.\n\n", encoding="utf-8")
    write_report(RECORDS[:2], page)
    write_report(RECORDS, page)
    written = page.read_text(encoding="utf-8")
    assert written.startswith("# Speed\n\nHow to read it.\n\n") and written.count("## small") == 1
    assert NATIVE in written and (tmp_path / "images" / "speed.png").stat().st_size > 10_000


def test_a_page_of_single_figures_has_no_plot(tmp_path: Path) -> None:
    page = tmp_path / "speed.md"
    write_report([record("state", value_bytes=4.0)], page)
    assert "bytes an entry for its value" in page.read_text(encoding="utf-8")
    assert "![" not in page.read_text(encoding="utf-8") and not (tmp_path / "images").exists()


@pytest.mark.parametrize("method", ["cns", "directions"])
def test_random_memories_are_memories(comfy: ModuleType, tmp_path: Path, method: str) -> None:
    """As the pack reads them: what a concept holds changes, and a figure would be of something else."""
    import torch

    from benchmarks.speed.models import host_model
    from benchmarks.speed.random_memories import some_memory, value_bytes
    from cns_core.memory_file import load_memory, save_memory

    with torch.inference_mode():
        memory = some_memory(host_model("small", torch.device("cpu")), 2, method)
        save_memory(tmp_path / "m.safetensors", memory)
        assert load_memory(tmp_path / "m.safetensors").digest() == memory.digest()
    assert value_bytes(memory) > 100_000
