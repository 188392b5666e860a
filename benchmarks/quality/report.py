"""What the bench found, as tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cns_core.evaluation.forgetting import ScoreMatrix


def summary(results: Sequence[dict[str, Any]]) -> str:
    """Per method what is learned, what is left of it, and what became of everything else; of each figure the
    mean over the runs, and the lowest and highest run.
    """
    lines = [
        "| method | runs | fit when learned | fit at the end | its rise | of the way | drift | class drift |",
        "|---|---|---|---|---|---|---|---|",
    ]
    best = best_fits(results)
    scored = [
        "| method | runs | score when learned | at the end | lost by earlier ones | lost by the first |"
    ]
    scored.append("|---|---|---|---|---|---|")
    for method in dict.fromkeys(r["method"] for r in results):
        mine = [r["stages"] for r in results if r["method"] == method]
        lines.append(_row(method, mine, lambda stages: _with_way(stages, best), ".4f"))
        drawn = [stages for stages in mine if stages[-1]["scores"]]
        if drawn:
            scored.append(_row(method, drawn, _scores, ".3f"))
    if len(scored) > 2:
        lines += ["", *scored]
    alone = [record for record in results if len(record["stream"]) == 1 and record["stages"][0]["scores"]]
    if alone:
        lines += ["", "| concept | method | seed | class word | learned | its own pictures | score |"]
        lines.append("|---|---|---|---|---|---|---|")
    for record in alone:
        name, scores = record["stages"][0]["learned"], record["stages"][0]["scores"]
        cells = [f"{scores[name][key]:.3f}" for key in ("class_word", "clip_i", "real")]
        score = score_of(scores[name])
        cells.append(f"{score:.3f}" if score == score else "no scale")
        lines.append(f"| {name} | {record['method']} | {record['seed']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _row(
    method: str,
    runs: Sequence[list[dict[str, Any]]],
    figures: Callable[[list[dict[str, Any]]], Sequence[float]],
    digits: str,
) -> str:
    columns = zip(*(figures(stages) for stages in runs), strict=True)
    cells = (spread(values, digits) for values in columns)
    return f"| {method} | {len(runs)} | {' | '.join(cells)} |"


def spread(values: Sequence[float], digits: str) -> str:
    """The mean, and the lowest and the highest where they are apart, NaN being what was not measured."""
    values = [value + 0.0 if abs(value) >= 5e-5 else 0.0 for value in values if value == value]
    if not values:
        return "not measured"
    low, high = (f"{end:{digits}}" for end in (min(values), max(values)))
    return f"{statistics.mean(values):{digits}}" + ("" if low == high else f" ({low} to {high})")


def places(results: Sequence[dict[str, Any]], whose: Sequence[str] = ("directions", "cns")) -> str:
    """By means over runs, which method is best in each measure, and at which place these are; empty for fewer
    than two methods.
    """
    best = best_fits(results)
    measures: tuple[tuple[str, int, bool], ...] = (
        ("learned, of the way", 3, True),
        ("rise of earlier ones", 2, False),
        ("drift", 4, False),
        ("class drift", 5, False),
    )
    means: dict[str, list[float]] = {}
    for method in dict.fromkeys(r["method"] for r in results):
        runs = [_with_way(r["stages"], best) for r in results if r["method"] == method]
        means[method] = [statistics.mean(column) for column in zip(*runs, strict=True)]
    if len(means) < 2:
        return ""
    here = [method for method in whose if method in means]
    lines = [f"| measure | best | {' | '.join(here)} |", "|---|---|" + "---|" * len(here)]
    for name, column, more_is_better in measures:
        # The better the higher, and no difference where none would be printed.
        sign = 1 if more_is_better else -1
        of_all = {method: sign * round(values[column], 4) for method, values in means.items()}
        if len(set(of_all.values())) == 1:
            continue
        leaders = [method for method, value in of_all.items() if value == max(of_all.values())]
        cells = []
        for method in here:
            ahead = sum(value > of_all[method] for value in of_all.values())
            cells.append(f"place {ahead + 1} of {len(of_all)}")
        shown = ", ".join(leaders[:3]) + (f" and {len(leaders) - 3} more" if len(leaders) > 3 else "")
        lines.append(f"| {name} | {shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def costs(results: Sequence[dict[str, Any]]) -> str:
    """Per method what a concept costs: what may move, what is kept of it, time and memory; and what joining
    costs where concepts are learned apart. Of each the mean over concepts.
    """
    lines = [
        "| method | concepts | K/V moving | bytes kept | preparing, s | training, s | peak MB | joining, s "
        "| its peak MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method in dict.fromkeys(r["method"] for r in results):
        stages = [stage for r in results if r["method"] == method for stage in r["stages"]]
        learned = [stage for stage in stages if "learned" in stage and "bytes" in stage]
        if not learned:
            continue
        names = ("share_of_kv", "bytes", "selection_s", "training_s", "peak_mb")
        formats = (".2%", ",.0f", ".1f", ".0f", ".0f")
        cells = [_mean([s[n] for s in learned if n in s], f) for n, f in zip(names, formats, strict=True)]
        joined = [stage for stage in stages if "joining_s" in stage]
        cells.append(_mean([stage["joining_s"] for stage in joined], ".1f"))
        cells.append(_mean([stage["peak_mb"] for stage in joined if "peak_mb" in stage], ".0f"))
        lines.append(f"| {method} | {len(learned)} | {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _mean(values: Sequence[float], digits: str) -> str:
    return f"{statistics.mean(values):{digits}}" if values else ""


def best_fits(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The least error that any run has reached on each concept."""
    best: dict[str, float] = {}
    for stage in (stage for record in results for stage in record["stages"]):
        for name, fit in stage["fit"].items():
            best[name] = min(fit, best.get(name, math.inf))
    return best


def way(stages: Sequence[dict[str, Any]], best: Mapping[str, float]) -> float:
    """How far along the way from the class word's error (0) to the best (1) the concepts of a run are at its
    end, on average; NaN where the class word's was not measured.
    """
    last = stages[-1]
    if not (begin := last.get("fit_of_class_word")):
        return math.nan
    return statistics.mean((begin[n] - fit) / (begin[n] - best[n]) for n, fit in last["fit"].items())


def _with_way(stages: list[dict[str, Any]], best: Mapping[str, float]) -> tuple[float, ...]:
    learned, end, rise, *drifts = fits(stages)
    return learned, end, rise, way(stages, best), *drifts


def fits(stages: list[dict[str, Any]]) -> tuple[float, ...]:
    """Of one run: the fit when learned, at the end, its mean rise for earlier ones; drift and class drift."""
    last = stages[-1]
    fits = _matrix("fit", stages, [stage["fit"] for stage in stages])
    return (
        fits.when_learned(),
        fits.average(),
        statistics.mean(fits.transfers() or [0.0]),
        last["drift"],
        statistics.mean(last["class_drift"].values()),
    )


def _scores(stages: list[dict[str, Any]]) -> tuple[float, ...]:
    """Of one run: the score when learned, NaN where it was not drawn; at the end; what was lost until then by
    all earlier concepts, and by the first.
    """
    by_stage = [{name: score_of(found) for name, found in stage["scores"].items()} for stage in stages]
    scores = _matrix("score", stages, by_stage)
    told = tuple(concept for concept in scores.concepts if not math.isnan(concept.last))
    if not told:
        return (math.nan,) * 4
    scores = replace(scores, concepts=told)
    lost = [0.0 - transfer for transfer in scores.transfers()] or [0.0]
    return scores.when_learned(), scores.average(), statistics.mean(lost), lost[0]


def score_of(found: Mapping[str, Any]) -> float:
    """A concept's score; NaN where its scale has no direction (`judge.py`), whenever it was recorded."""
    if found["score"] is None or found.get("real", 1.0) <= found.get("class_word", 0.0):
        return math.nan
    return float(found["score"])


def _matrix(measure: str, stages: list[dict[str, Any]], by_stage: list[dict[str, float]]) -> ScoreMatrix:
    return ScoreMatrix.of_stages(measure, learned_by(stages), by_stage)


def learned_by(stages: Sequence[dict[str, Any]]) -> list[str]:
    """The concepts in the order in which they were learned: a stage that joins them has none of its own."""
    return [stage["learned"] for stage in stages if "learned" in stage]


def set_prompts(records: Sequence[dict[str, Any]]) -> str:
    """Of an ordered set's own prompts, by how many concepts they have in them: plain cosines, mean of all and
    of the best picture of each prompt; empty where none were drawn.
    """
    drawn = [record for record in records if "set_prompts" in record]
    if not drawn:
        return ""
    lines = ["| method | runs | prompts | CLIP-I | best | CLIP-T | best |", "|---|---|---|---|---|---|---|"]
    for method in dict.fromkeys(record["method"] for record in drawn):
        mine = [record["set_prompts"] for record in drawn if record["method"] == method]
        for group in mine[0]:
            names = ("clip_i", "best_clip_i", "clip_t", "best_clip_t")
            cells = (spread([run[group][name] for run in mine], ".3f") for name in names)
            lines.append(f"| {method} | {len(mine)} | {group} | {' | '.join(cells)} |")
    return "\n".join(lines)


def confusion(records: Sequence[dict[str, Any]]) -> str:
    """At the end of streams: what a concept's pictures score as other concepts of its kind, the share of
    pictures that are nearest to their own prompt, and CLIP-T; empty where nothing was drawn, or by an older
    bench.
    """
    lines = ["| method | runs | score | as others | own prompt nearest | of the class word | CLIP-T |"]
    lines.append("|---|---|---|---|---|---|---|")
    for method in dict.fromkeys(record["method"] for record in records):
        ends = [r["stages"][-1]["scores"] for r in records if r["method"] == method and len(r["stream"]) > 1]
        ends = [scores for scores in ends if scores and all("taken_for" in s for s in scores.values())]
        if not ends:
            continue
        columns = zip(*(_confusion(list(scores.values())) for scores in ends), strict=True)
        cells = (spread(values, ".3f") for values in columns)
        lines.append(f"| {method} | {len(ends)} | {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _confusion(scores: Sequence[dict[str, Any]]) -> tuple[float, ...]:
    """Means over the concepts of one run; NaN for none of the kind."""
    own = [value for one in scores if (value := score_of(one)) == value]
    others = [value for one in scores for value in one["taken_for"].values() if value is not None]
    return (
        statistics.mean(own) if own else math.nan,
        statistics.mean(others) if others else math.nan,
        statistics.mean(one["fidelity"] for one in scores),
        statistics.mean(one["fidelity_of_class_word"] for one in scores),
        statistics.mean(one.get("clip_t", math.nan) for one in scores),
    )


def overlaps(records: Sequence[dict[str, Any]]) -> str:
    """How far concept neurons are the same where the noun is, and where all else is; empty for none."""
    if not records:
        return ""
    lines = ["| score | tokens that count | same noun | another noun | all pairs |", "|---|---|---|---|---|"]
    for record in records:
        pairs = [value for row, values in enumerate(record["iou"]) for value in values[:row]]
        figures = (record["same_noun"], record["other_noun"], statistics.mean(pairs))
        cells = " | ".join(f"{value:.3f}" for value in figures)
        lines.append(f"| {record['score']} | {record['tokens']} | {cells} |")
    return "\n".join(lines)
