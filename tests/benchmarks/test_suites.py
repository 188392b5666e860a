"""The suites: their jobs, what is done of them, and their tables, without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks.quality import entries, pictures, report, results, suite, unlearn
from benchmarks.quality.jobs import Job, Records, done_here
from benchmarks.quality.judge import Judge, fidelity
from benchmarks.quality.overlap import PROMPTS
from benchmarks.quality.prompts import COUNT, in_words
from benchmarks.quality.streams import folders_of_set
from benchmarks.quality.suites import SUITES, SWEEPS, Asked, check_methods, given_settings
from benchmarks.quality.variants import DEFAULTS, SETTINGS, VARIANTS
from cns_core.methods import METHODS
from cns_core.settings import described
from devtools import benches
from devtools.concept_folders import ConceptFolder

SETTINGS_OF_BENCH = {name: default for name, default, _ in SETTINGS}


def asked(quick: bool = False, methods: tuple[str, ...] = (), seeds: int = 1) -> Asked:
    return Asked(methods, seeds, quick, SETTINGS_OF_BENCH)


def test_the_command_line_knows_every_suite() -> None:
    assert tuple(SUITES) == benches.SUITES and set(benches.SUITES) < set(benches.BENCHES)


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_a_list_of_different_jobs_that_a_file_can_hold(name: str, tmp_path: Path) -> None:
    jobs = SUITES[name](asked(seeds=2))
    quick = SUITES[name](asked(quick=True))
    assert 0 < len(quick) < len(jobs)
    for job in jobs:
        assert json.loads(json.dumps(job.values)) == job.values and job.told()
    records = Records(tmp_path / "runs.jsonl")
    left = records.missing(jobs)
    # What is swept passes by the bench's own value once for each setting.
    assert len(left) == len(jobs) or name == "sweep"
    records.add(left[0], {"stages": []})
    assert len(Records(tmp_path / "runs.jsonl").missing(jobs)) == len(left) - 1


def test_methods_and_seeds_are_chosen() -> None:
    jobs = SUITES["paper"](asked(methods=("cns", "perfusion"), seeds=3))
    assert len(jobs) == 2 * 3 * 3 and {job.values["method"] for job in jobs} == {"cns", "perfusion"}
    assert [j.values["stream"] for j in jobs[:3]] == [folders_of_set(number) for number in (1, 2, 3)]
    assert [job.values["prompts_of"] for job in jobs[:3]] == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "known", "unknown"),
    [("sweep", "cns", "lora"), ("unlearn", "esd", "cns"), ("paper", "lora", "esd")],
)
def test_each_suite_knows_its_methods(name: str, known: str, unknown: str) -> None:
    check_methods(name, [known])
    with pytest.raises(ValueError, match=f"Unknown methods: {unknown}. Known ones: .*{known}"):
        check_methods(name, [known, unknown])


def test_settings_are_given_by_name() -> None:
    assert given_settings("long", ["steps=300", "token_lr=1e-3"]) == {"steps": 300, "token_lr": 1e-3}
    given = given_settings("unlearn", ["word=zebra", "neighbours=cow,pig", "instead=", "guard=0"])
    assert given == {"word": "zebra", "neighbours": ["cow", "pig"], "instead": "", "guard": 0.0}
    for words in (["stepz=1"], ["steps"], ["word=zebra"]):
        with pytest.raises(ValueError, match="is no NAME=VALUE of one of: batch_size, "):
            given_settings("long", words)


def test_a_word_is_erased_in_each_way_and_before_any() -> None:
    given = given_settings("unlearn", ["word=zebra", "keep=cow", "guard=0", "steps=7"])
    jobs = SUITES["unlearn"](Asked(("uce", "esd"), 1, False, SETTINGS_OF_BENCH, given))
    untouched, by_uce, by_esd = (job.values for job in jobs)
    assert untouched["instead"] == "" and untouched["keep"] == [] and "settings" not in untouched
    assert all(one["word"] == "zebra" for one in (untouched, by_uce, by_esd))
    assert by_esd["keep"] == ["cow"] and by_esd["settings"]["guard"] == 0 and by_esd["settings"]["steps"] == 7
    assert "steps" not in by_uce["settings"], "it does not train"


def test_a_direction_may_be_a_concepts_own_where_no_column_is() -> None:
    """Two columns that say the same of both, but in opposite phase of the concept."""
    own = torch.tensor([[1.0, -0.99, 0.0], [-0.99, 1.0, 0.0], [0.0, 0.0, 0.5]], dtype=torch.float64)
    protected = torch.tensor([[1.0, 0.99, 0.0], [0.99, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    assert entries.best_gain(own, protected, torch.tensor([0])) == pytest.approx(1)
    assert entries.best_gain(own, protected, torch.tensor([0, 2])) == pytest.approx(1)
    assert entries.best_gain(own, protected, torch.tensor([0, 1])) == pytest.approx(1.99 / 0.01)
    gains = entries._gains(own, protected, [torch.tensor([True, True, False]), torch.tensor([True] * 3)])
    assert gains["columns"] == [0.5, 1.0, 1.0] and gains["direction"] == pytest.approx(199)
    assert gains["mask"]["cns"] == pytest.approx(4.5 / 5) and gains["best_in_columns"]["cns"] > 198
    record = {"concepts": {"my-panda": gains}, "stream": ["panda"], "iou": 0.5, "iou_of_rows": 0.75}
    *_, row, _, told = entries.table([{**record, "by_chance": 0.25}]).splitlines()
    assert row.startswith("| my-panda | 0.50 / 1.00 / 1.00 | 0.90 | ") and row.endswith(" | 199.0 |")
    assert told.endswith(
        "IoU of 0.50, the columns of two rows of one projection 0.75; at random both would have 0.25."
    )
    assert entries.table([]) == ""


def test_what_an_erasure_did_is_a_row() -> None:
    seen = {"called": {"tiger": ["dog", "dog", "cow"]}, "named": {"lion": 1.0, "cat": 0.5, "car": 0.25}}
    record = {"word": "tiger", "instead": "", "method": "esd", "seed": 1, **seen, "paraphrases": ["dog"] * 4}
    record |= {"neighbours": ["lion", "cat"], "others": ["car"], "drift": 0.125, "fit": {"my-panda": 0.11}}
    rows = [{**record, "attack": {"named": 0.5}}, {**record, "method": "untouched"}]
    same = "1 | dog 2, cow 1 | lion 100%, cat 50% | car 25% | dog 4 | 0.1250 | 0.1100"
    assert unlearn.table(rows).splitlines()[2:] == [
        f"| tiger, to nothing | esd | {same} | 50% |",
        f"| tiger | untouched | {same} |  |",
    ]
    assert unlearn.table([]) == ""


def test_a_variants_own_settings_are_part_of_its_job() -> None:
    found = {
        j.values["method"]: j.values for j in SUITES["ablation"](asked(quick=True, methods=tuple(VARIANTS)))
    }
    assert found["cns"]["keep_earlier"] == 1e-3 and found["cns without L_reg"]["keep_earlier"] == 0
    assert "least_gain" not in found["cns"] and "least_gain" in found["directions"]


def test_fig_7_changes_one_word_at_a_time() -> None:
    texts = [rest.format(noun).split() for noun, rest in PROMPTS]
    assert len(texts) == len({tuple(text) for text in texts}) == 11
    assert all(sum(a != b for a, b in zip(texts[0], text, strict=True)) == 1 for text in texts[1:])


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    jobs = [Job("learn", {"method": "cns", "seed": seed, "rank": 4}) for seed in range(3)]
    path = tmp_path / "folder" / "runs.jsonl"
    records = Records(path)
    for job, result in done_here(jobs[:2], lambda job: {"found": job.values["seed"]}):
        records.add(job, result)
    again = Records(path)
    assert again.missing([*jobs, *jobs]) == jobs[2:]
    record = again.of(jobs[1])
    assert record == {**jobs[1].values, "kind": "learn", "found": 1, "decided_by": ["method", "rank", "seed"]}
    assert again.of(Job("overlap", jobs[1].values)) is None


def test_a_run_by_other_settings_is_another_run_though_a_job_has_no_word_for_them(tmp_path: Path) -> None:
    plain = {"method": "cns", "seed": 0}
    for name, value in {"calibration_prompts": 16, "select_by": "top percent", "base": "another"}.items():
        records = Records(tmp_path / f"{name}.jsonl", DEFAULTS)
        records.add(Job("learn", {**plain, name: value}), {"stages": []})
        assert records.of(Job("learn", plain)) is None
    records = Records(tmp_path / "default.jsonl", DEFAULTS)
    records.add(Job("learn", {**plain, "calibration_prompts": DEFAULTS["calibration_prompts"]}), {})
    assert records.of(Job("learn", plain)) is not None
    looked = Records(tmp_path / "looked.jsonl", DEFAULTS)
    looked.add(Job("learn", {**plain, "prompts_of": 1}), {"set_prompts": {}})
    assert looked.of(Job("learn", plain)) is not None, "what is looked at besides decides nothing"


def test_every_sweep_holds_what_is_the_default() -> None:
    for method, settings in SWEEPS.items():
        own = {**described(METHODS[method].Selection), **described(METHODS[method].Training)}
        defaults = {**{name: default for name, (default, _) in own.items()}, **DEFAULTS}
        assert {name: defaults[name] in values for name, values in settings.items()} == dict.fromkeys(
            settings, True
        )


def test_a_concept_whose_scale_stands_on_its_head_has_no_score() -> None:
    style = ConceptFolder(Path(), "style", "style", "style")
    given = seen_as((1, 0), (0, 1))  # of different things
    judge = Judge(Scorer(), lambda f: given, lambda f: seen_as(*[(1, 1)] * 8))
    seen = judge.look(style, seen_as(*[(1, 1)] * 8), [style])
    assert seen["real"] < seen["class_word"] and seen["score"] is None
    assert seen["taken_for"] == {"style": None}
    assert report.score_of(seen) != report.score_of(seen)
    recorded_before = {"score": -3.0, "real": 0.1, "class_word": 0.2}
    assert report.score_of(recorded_before) != report.score_of(recorded_before)
    stage = {"learned": "a", "fit": {"a": 0.1}, "drift": 0.0, "class_drift": {"a": 0.0}}
    record = {"method": "cns", "seed": 0, "stream": ["a"], "stages": [{**stage, "scores": {"a": seen}}]}
    assert report.summary([record]).endswith("| no scale |")
    assert report.summary([record]).count("not measured") >= 4


def test_a_prompt_of_a_set_is_said_without_what_has_no_name() -> None:
    style, place = (ConceptFolder(Path(), kind, "x", kind) for kind in ("style", "scene"))
    cat = ConceptFolder(Path(), "leo", "cat", "subject")
    for prompt, said in (
        ("a picture of <leo> in the style of <style>", "a picture of cat"),
        ("<style> style, <leo> in <scene>", "cat"),
        ("<leo>, <scene> background", "cat"),
        ("a photo of <scene>", "a photo"),
    ):
        assert in_words(prompt, [style, place, cat]) == said
    with pytest.raises(ValueError, match="in a way that is not known"):
        in_words("<leo> beside <scene>", [place, cat])


def test_who_is_best_is_told_and_who_is_not() -> None:
    def record(method: str, fit: float, drift: float) -> dict[str, Any]:
        looked = {"fit": {"a": fit}, "fit_of_class_word": {"a": 0.3}, "class_drift": {"a": drift}}
        stage = {"learned": "a", "drift": drift, "scores": {}, **looked}
        return {"method": method, "stream": ["a"], "stages": [stage]}

    records = [record("directions", 0.2, 0.01), record("cns", 0.15, 0.2), record("all K/V", 0.1, 2.0)]
    rows = report.places(records).splitlines()
    assert rows[0] == "| measure | best | directions | cns |"
    assert rows[2] == "| learned, of the way | all K/V | place 3 of 3 | place 2 of 3 |"
    assert rows[3] == "| drift | directions | place 1 of 3 | place 2 of 3 |", "nobody rises"
    assert report.places(records[:1]) == ""


def test_a_setting_that_came_later_was_what_it_is_by_default(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text('{"method": "cns", "stages": []}\n')
    records = Records(path, {"rank": 4})
    assert records.of(Job("learn", {"method": "cns", "rank": 4})) is not None
    assert records.of(Job("learn", {"method": "cns", "rank": 5})) is None


def test_a_line_that_was_cut_off_is_told(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text('{"method": "cns"}\n{"meth')
    with pytest.raises(ValueError, match=r"Line 2 of .*runs\.jsonl is no JSON.*remove it"):
        Records(path)


def test_what_is_left_is_listed_without_a_model(tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "runs.jsonl"
    words = ["alike", "--quick", "--methods", "cns", "lora", "--list", "--output", str(output)]
    jobs = SUITES["alike"](asked(quick=True, methods=("cns", "lora")))
    Records(output).add(jobs[0], {"stages": []})
    assert suite.main(words) == 0
    said = capsys.readouterr().out
    assert said.splitlines() == ["2 jobs, of which 1 are done already", "learn, lora, panda -> skunk, seed 0"]
    assert suite.main(["alike", "--methods", "none of them"]) == 2
    assert "Unknown methods: none of them" in capsys.readouterr().err


class Scorer:
    """Sees a picture as the two numbers in its first pixel, and prompts as what they name."""

    def encode_images(self, images: Any) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.as_tensor(images)[:, 0, 0, :2], dim=-1)

    def encode_prompts(self, prompts: Any) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0] if "dog" in prompt else [0.0, 1.0] for prompt in prompts])


def seen_as(*directions: tuple[float, float]) -> torch.Tensor:
    return torch.tensor([[*direction, 0.0] for direction in directions])[:, None, None, :]


def test_what_the_judge_says() -> None:
    dog, cat = (ConceptFolder(Path(), name, name, "subject") for name in ("dog", "cat"))
    given = {"dog": seen_as((1, 0), (1, 0.5)), "cat": seen_as((0, 1), (0.5, 1))}
    judge = Judge(Scorer(), lambda f: given[f.name], lambda f: seen_as(*[(1, 1)] * 8))
    seen = judge.look(dog, seen_as(*[(1, 0)] * 8), [cat])
    own, between = 2 / 5**0.5, (0.5**0.5 + 3 / 10**0.5) / 2
    assert seen["real"] == pytest.approx(own) and seen["class_word"] == pytest.approx(between)
    assert seen["clip_i"] == pytest.approx((1 + own) / 2) and seen["clip_t"] == pytest.approx(1)
    assert seen["score"] == pytest.approx(((1 + own) / 2 - between) / (own - between))
    as_cat = (0 + 1 / 5**0.5) / 2
    assert seen["taken_for"]["cat"] == pytest.approx((as_cat - between) / (own - between))
    drawn = seen_as((1, 0), (0, 1), (1, 0), (0, 1))
    prompts = ["a <dog>", "a <dog>", "a <cat>", "a <cat>"]
    in_words = ["a dog", "a dog", "a cat", "a cat"]
    both = judge.together(drawn, prompts, in_words, [[dog], [dog], [cat], [dog, cat]])
    each = [(1 + own) / 2, as_cat, as_cat, ((1 + own) / 2 + as_cat) / 2]
    assert both["clip_i"] == pytest.approx(sum(each) / 4) and both["pictures"] == 4
    assert both["best_clip_i"] == pytest.approx((each[0] + each[3]) / 2)
    assert both["clip_t"] == 0.5 and both["best_clip_t"] == 1


def test_fidelity_is_the_share_that_is_nearest_to_its_own_prompt() -> None:
    eye = torch.eye(4)
    assert fidelity(eye, eye) == 1 and fidelity(eye.roll(1, 0), eye) == 0
    assert fidelity(eye[[0, 1, 0, 0]], eye) == 0.5


def test_every_method_has_a_row_of_pictures(tmp_path: Path) -> None:
    output = tmp_path / "suites.jsonl"
    kept = pictures.kept_in(output)
    kept.mkdir()
    colours = {"cns": (255, 0, 0), "lora": (0, 0, 255)}
    Image.new("RGB", (8 * COUNT, 8), (0, 255, 0)).save(kept / pictures.plain_name("my-panda"))
    records = []
    for method, colour in colours.items():
        Image.new("RGB", (8 * COUNT, 8), colour).save(kept / pictures.kept_name("my-panda", method, 0, 1))
        stages = [{"learned": "my-panda", "scores": {"my-panda": {}}}]
        records.append({"method": method, "seed": 0, "draw": "at the end", "stages": stages})
    elsewhere = {**records[0], "method": "oft"}
    with pytest.raises(ValueError, match="No pictures of these runs are in"):
        pictures.write_method_sheet([elsewhere], output)
    records.append(elsewhere)
    with Image.open(pictures.write_method_sheet(records, output)) as sheet:
        corners = [sheet.getpixel((60, 22)), sheet.getpixel((60, 48)), sheet.getpixel((8 * COUNT + 40, 22))]
    wanted = [(0, 255, 0), colours["cns"], colours["lora"]]
    for found, colour in zip(corners, wanted, strict=True):
        assert all(abs(a - b) < 60 for a, b in zip(found, colour, strict=True))


def test_a_row_of_several_concepts_has_the_pictures_of_each(tmp_path: Path) -> None:
    output = tmp_path / "suites.jsonl"
    kept = pictures.kept_in(output)
    kept.mkdir()
    concepts = {"my-panda": (255, 0, 0), "my-pop-print": (0, 0, 255)}
    for concept, colour in concepts.items():
        for name in (pictures.plain_name(concept), pictures.kept_name(concept, "ziplora", 0, 2)):
            Image.new("RGB", (8 * COUNT, 8), colour).save(kept / name)
    learned = [{"learned": concept, "scores": {}} for concept in concepts]
    stages = [*learned, {"scores": {concept: {} for concept in concepts}}]
    record = {"method": "ziplora", "seed": 0, "draw": "at the end", "stages": stages}
    with Image.open(pictures.write_method_sheet([record], output)) as sheet:
        found = [sheet.getpixel((8 * COUNT * 2 + 60 + x, 20)) for x in (0, 8 * COUNT)]
    for seen, colour in zip(found, concepts.values(), strict=True):
        assert all(abs(a - b) < 60 for a, b in zip(seen, colour, strict=True))


def test_every_way_to_erase_has_a_row_of_pictures_of_each_thing(tmp_path: Path) -> None:
    output = tmp_path / "suites.jsonl"
    kept = pictures.kept_in(output)
    kept.mkdir()
    asked_for = {
        "word": "tiger",
        "neighbours": ["lion"],
        "others": [],
        "instead": "",
        "pictures": 4,
        "seed": 0,
    }
    records = [{**asked_for, "method": name} for name in ("untouched", "esd")]
    with pytest.raises(ValueError, match="No pictures of these runs are in"):
        unlearn.write_sheet(records, output)
    for record, colour in zip(records, ((255, 0, 0), (0, 0, 255)), strict=True):
        Image.new("RGB", (64, 32), colour).save(kept / unlearn._kept_name(record))
    with Image.open(unlearn.write_sheet([*records, {**records[1], "seed": 1}], output)) as sheet:
        seen = [sheet.getpixel((x, 24)) for x in (8, 56, sheet.width - 8)]
    for found, colour in zip(seen, ((255, 0, 0), (255, 0, 0), (0, 0, 255)), strict=True):
        assert all(abs(a - b) < 60 for a, b in zip(found, colour, strict=True))


def test_tables() -> None:
    groups = {"single": {"clip_i": 0.5, "best_clip_i": 0.6, "clip_t": 0.2, "best_clip_t": 0.3, "pictures": 4}}
    other = {"single": {**groups["single"], "clip_i": 0.7}}
    records = [{"method": "cns", "set_prompts": groups}, {"method": "cns", "set_prompts": other}]
    assert (
        report.set_prompts(records)
        .splitlines()[-1]
        .startswith("| cns | 2 | single | 0.600 (0.500 to 0.700) | 0.600")
    )
    score = {"score": 0.9, "taken_for": {"b": 0.1, "upside down": None}, "fidelity": 0.5, "clip_t": 0.25}
    score["fidelity_of_class_word"] = 1.0
    stages = [{"scores": {}}, {"scores": {"a": score, "b": {**score, "taken_for": {"a": 0.3}}}}]
    table = report.confusion([{"method": "cns", "stream": ["a", "b"], "stages": stages}])
    assert table.splitlines()[-1] == "| cns | 1 | 0.900 | 0.200 | 0.500 | 1.000 | 0.250 |"
    old = [{"scores": {"a": {"score": 1.0}}}]
    assert report.confusion([{"method": "cns", "stream": ["a", "b"], "stages": old}]) == ""
    iou = [[1, 0.5, 0.2], [0.5, 1, 0.2], [0.2, 0.2, 1]]
    record = {"score": "activation", "tokens": "all", "iou": iou, "same_noun": 0.5, "other_noun": 0.2}
    assert report.overlaps([record]).splitlines()[-1] == "| activation | all | 0.500 | 0.200 | 0.300 |"
    assert report.set_prompts([]) == report.overlaps([]) == ""


def test_readme_has_the_table_of_its_records() -> None:
    readme = results.README.read_text(encoding="utf-8")
    assert results.with_table(readme, results.recorded()) == readme, "run: python3 dev.py bench results"
    assert readme.count("\n| token alone | ") == 1


def test_the_page_of_results_tells_what_is_recorded_and_what_is_missing(tmp_path: Path) -> None:
    output = tmp_path / "suites.jsonl"
    records = Records(output)

    def scores(*values: float) -> dict[str, Any]:
        return {f"c{number}": {"score": value} for number, value in enumerate(values)}

    def stages(*by_stage: tuple[float, ...]) -> list[dict[str, Any]]:
        return [
            {
                "learned": f"c{number}",
                "fit": dict.fromkeys([f"c{n}" for n in range(number + 1)], 0.125),
                "drift": 0.25,
                "class_drift": {"c0": 0.5},
                "scores": scores(*values),
            }
            for number, values in enumerate(by_stage)
        ]

    groups = {
        group: {"pictures": count, "clip_i": value, "clip_t": 0.2}
        for group, count, value in (("single", 2, 0.5), ("double", 3, 0.6), ("triple", 1, 1.0))
    }
    best = {"best_clip_i": 1.0, "best_clip_t": 1.0}
    paper = SUITES["paper"](asked(methods=("cns",)))[0]
    groups = {name: {**group, **best} for name, group in groups.items()}
    records.add(paper, {"stages": stages(()), "set_prompts": groups})
    for seed, left in ((0, 0.5), (1, 0.7)):
        job = SUITES["forgetting"](asked(methods=("cns",), seeds=2))[seed]
        records.add(job, {"stages": stages((0.9,), (left, 0.8))})
    of_steps = [job for job in SUITES["sweep"](asked(methods=("cns",))) if job.values["steps"] == 300]
    records.add(of_steps[0], {"stages": stages((), ())})
    for job in SUITES["overlap"](asked())[:4]:
        records.add(job, {"iou": [[1.0] * 11] * 11, "same_noun": 0.75, "other_noun": 0.5})
    written = tmp_path / "results.md"
    assert results.main(["--records", str(output), "--output", str(written)]) == 0
    page = written.read_text()
    assert "](images/results_paper_first.png)" not in page, "one stage is no curve"
    plot = tmp_path / "images" / "results_forgetting_first.png"
    assert f"](images/{plot.name})" in page
    for image in (plot, plot.with_name("results_overlap_masks.png")):
        with Image.open(image) as picture:
            assert picture.width > 600
    assert "| cns | 1 | 50.00 / 50.00 | 70.00 / 50.00 | 74.88 / 76.95 | 67.21 / 79.22 |" in page
    assert "| cns | 2 | 0.90 | 0.60 (0.50 to 0.70) |" in page
    assert "| cns | steps | 300 | 1 | 0.1250 | 0.0000 | 0.2500 | 0.5000 |" in page
    assert "`python3 dev.py bench overlap` with one seed 4 of 6" in page
