"""The numbers of continual learning against ones computed by hand, what is drawn for them, and their
plots.
"""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import pytest
import torch
from PIL import Image

from cns_core.evaluation.forgetting import ConceptScores, Guard, ScoreMatrix, as_csv
from cns_core.evaluation.matrix import (
    DEFAULT_PLAIN_PROMPTS,
    DEFAULT_PROMPTS,
    Cell,
    Grid,
    MatrixSettings,
    concept_prompts,
    plain_prompts,
    score,
)
from cns_core.evaluation.matrix_plots import course, heat_map, picture_grid
from cns_core.evaluation.matrix_report import report
from cns_core.identity import ModelIdentity
from cns_core.memory import ConceptMemory

A = ConceptScores("<a>", 1, (0.80, 0.90, 0.60), 0.50)
B = ConceptScores("<b>", 2, (0.70, 0.75), 0.40)
C = ConceptScores("<c>", 3, (0.90,), 0.60)
MATRIX = ScoreMatrix("CLIP-I", 3, (A, B, C))
LONG = "<a-concept-with-a-token-that-goes-on-" + "and-on-" * 12 + ">"


def test_the_measures_by_hand() -> None:
    assert MATRIX.average() == pytest.approx((0.60 + 0.75 + 0.90) / 3)
    assert MATRIX.when_learned() == pytest.approx((0.80 + 0.70 + 0.90) / 3)
    assert MATRIX.forgetting() == pytest.approx((0.30 + 0.0 + 0.0) / 3)  # from 0.90, not from 0.80
    assert MATRIX.transfers() == pytest.approx((-0.20, 0.05))
    assert MATRIX.backward_transfer() == pytest.approx((-0.20 + 0.05) / 2)
    assert MATRIX.floor() == pytest.approx(0.50)
    assert [A.at(s) for s in range(4)] == [0.50, 0.80, 0.90, 0.60]
    assert [B.at(s) for s in range(4)] == [0.40, None, 0.70, 0.75]


def test_some_of_the_concepts_are_measured_at_their_own_stages() -> None:
    only_b = ScoreMatrix("CLIP-I", 3, (B,))
    assert only_b.average() == 0.75 and only_b.backward_transfer() == pytest.approx(0.05)
    only_c = ScoreMatrix("CLIP-I", 3, (C,))
    assert only_c.forgetting() == 0 and math.isnan(only_c.backward_transfer()) and not only_c.transfers()


def test_what_was_not_measured_is_no_number() -> None:
    """Not a score of 0, and not left out of a mean in silence."""
    matrix = ScoreMatrix.of_stages("score", ["a", "b"], [{}, {"a": 0.4, "b": 0.6}])
    assert matrix.average() == pytest.approx(0.5)
    assert math.isnan(matrix.when_learned()) and math.isnan(matrix.forgetting())
    assert math.isnan(matrix.backward_transfer()) and math.isnan(matrix.floor())
    assert sorted(matrix.values()) == [0.4, 0.6]
    assert as_csv([matrix]).splitlines()[1] == "score,a,1,,,0.400000"


@pytest.mark.parametrize(
    ("concepts", "told"),
    [
        ((), "no concept has scores"),
        ((ConceptScores("a", 1, (0.5,)),), "a has 1 scores; expected one for each stage from 1 to 2"),
        ((ConceptScores("a", 3, ()),), "learned at stage 3, expected one from 1 to 2"),
        ((ConceptScores("a", 0, (1.0, 1.0, 1.0)),), "learned at stage 0"),
    ],
)
def test_a_matrix_with_holes_is_refused(concepts: tuple[ConceptScores, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ScoreMatrix("CLIP-I", 2, concepts)


def test_the_table_has_a_column_for_each_stage() -> None:
    guard = Guard((0.99, 0.98, 0.97), (0.31, 0.30, 0.29, 0.28))
    rows = list(csv.reader(io.StringIO(as_csv([MATRIX, ScoreMatrix("CLIP-T", 3, (A,))], guard))))
    assert rows[0] == ["measure", "concept", "learned at stage", "stage 0", "stage 1", "stage 2", "stage 3"]
    assert rows[2] == ["CLIP-I", "<b>", "2", "0.400000", "", "0.700000", "0.750000"]
    assert rows[4][:4] == ["CLIP-T", "<a>", "1", "0.500000"]
    assert rows[5][3:] == ["", "0.990000", "0.980000", "0.970000"]
    assert rows[6][3:] == ["0.310000", "0.300000", "0.290000", "0.280000"]
    assert len({len(row) for row in rows}) == 1 and len(rows) == 7


def grid(**changes: Any) -> Grid:
    given = {
        "concepts": (("<a>", "dog"), ("<b>", "dog")),
        "prompts": ("a photo of {}", "{} and {}"),
        "plain": ("a car",),
        "seeds": (7, 8),
    }
    return Grid(**{**given, **changes})


def test_every_picture_is_drawn_once_and_stage_by_stage() -> None:
    cells = grid().cells()
    assert len(set(cells)) == len(cells)
    assert [cell.stage for cell in cells] == sorted(cell.stage for cell in cells)
    by_stage = [{c.prompt for c in cells if c.stage == stage} for stage in range(3)]
    # Both have one class word, which need not be drawn twice.
    assert by_stage[0] == {"a photo of dog", "dog and dog", "a car"}
    assert by_stage[1] == {"a photo of <a>", "<a> and <a>", "a car"}
    assert by_stage[2] == by_stage[1] | {"a photo of <b>", "<b> and <b>"}
    assert {cell.seed for cell in cells} == {7, 8}


def test_one_more_concept_adds_the_cells_of_its_stage_and_its_class_word() -> None:
    before = set(grid().cells())
    after = set(grid(concepts=(("<a>", "dog"), ("<b>", "dog"), ("<c>", "mug"))).cells())
    assert before < after
    assert {cell.stage for cell in after - before} == {0, 3}


def test_scores_of_features_by_hand() -> None:
    """In a plane: a picture's feature at an angle, the cosine to others by hand."""

    def at(degrees: float) -> torch.Tensor:
        return torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])

    small = grid(prompts=("{}",), seeds=(7,))
    features = {
        Cell(0, "dog", 7): at(90),
        Cell(1, "<a>", 7): at(0),
        Cell(2, "<a>", 7): at(60),
        Cell(2, "<b>", 7): at(30),
        Cell(0, "a car", 7): at(0),
        Cell(1, "a car", 7): at(0),
        Cell(2, "a car", 7): at(45),
    }
    texts = {"dog": at(90), "a car": at(0)}
    found = score(small, features, texts, {"<a>": torch.stack([at(0), at(60)])})
    assert found.clip_i is not None and found.guard is not None
    (of_a,) = found.clip_i.concepts  # <b> has no references
    cos30, cos60, cos45 = math.sqrt(3) / 2, 0.5, math.sqrt(0.5)
    assert of_a.after == pytest.approx((0.75, 0.75), abs=1e-6)  # (1 + cos 60) / 2 both times
    assert of_a.floor == pytest.approx((0 + cos30) / 2, abs=1e-6)
    a, b = found.clip_t.concepts
    assert a.after == pytest.approx((0, cos30), abs=1e-6) and a.floor == pytest.approx(1)
    assert b.learned == 2 and b.after == pytest.approx((cos60,), abs=1e-6)
    assert found.guard.likeness == pytest.approx((1, cos45), abs=1e-6)
    assert found.guard.clip_t == pytest.approx((1, 1, cos45), abs=1e-6)
    assert found.shown() is found.clip_i
    without = score(small, features, texts, {})
    assert without.clip_i is None and without.shown() is without.clip_t


def test_the_default_prompts_are_sound() -> None:
    assert len(concept_prompts(DEFAULT_PROMPTS)) == 2 and len(plain_prompts(DEFAULT_PLAIN_PROMPTS)) == 3
    assert concept_prompts(" a {} \n\na {}\n") == ("a {}",)


@pytest.mark.parametrize(
    ("prompts", "plain", "told"),
    [
        (" \n", "", "There are 0 prompts, expected at least one"),
        ("a {}\na dog", "", r"'a dog' has no \{\}"),
        ("a {}", "a {} car", r"plain prompt 'a \{\} car' has \{\}"),
    ],
)
def test_wrong_prompts(prompts: str, plain: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        concept_prompts(prompts)
        plain_prompts(plain)


def test_an_empty_memory_has_no_matrix() -> None:
    from cns_core.projections import ProjectionLayout

    layout = ProjectionLayout(("attn2.to_k",), ((2, 2),))
    with pytest.raises(ValueError, match="holds 0 concepts"):
        Grid.of(ConceptMemory(ModelIdentity("toy", "0"), layout), "a {}", "", MatrixSettings())


@pytest.mark.parametrize("settings", [{"resolution": 500}, {"pictures": 0}, {"cfg": math.nan}, {"steps": 0}])
def test_impossible_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        MatrixSettings(**settings)


def test_seeds_follow_each_other_and_never_leave_their_range() -> None:
    assert MatrixSettings(pictures=3, seed=5).seeds() == (5, 6, 7)
    assert MatrixSettings(pictures=2, seed=2**64 - 1).seeds() == (2**64 - 1, 0)


def test_the_report_has_every_number_and_its_tables_line_up() -> None:
    from cns_core.evaluation.matrix import Scores

    three = grid(concepts=(("<a>", "dog"), ("<b>", "dog"), ("<c>", "mug")))
    scores = Scores(
        ScoreMatrix("CLIP-I", 3, (A, B)),
        ScoreMatrix("CLIP-T", 3, (A, B, C)),
        Guard((1.0, 0.98, 0.97), (0.31, 0.30, 0.29, 0.28)),
    )
    text = report(three, scores)
    assert "final average 0.6750 (paper's scale, 100 x: 67.50); when learned 0.7500" in text
    assert "forgetting 0.1500" in text and "backward transfer -0.0750" in text
    assert "No CLIP-I of `<c>`" in text and "No CLIP-I of `<a>`" not in text
    assert "CLIP-I 0.9700 to the untouched" in text and "CLIP-T 0.2800 (untouched 0.3100)" in text
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert len(tables) == 3
    for table in tables:
        assert len({len(line) for line in table}) == 1 and len({line.count("|") for line in table}) == 1


def test_the_report_of_a_single_concept() -> None:
    from cns_core.evaluation.matrix import Scores

    one = grid(concepts=(("<a>", "dog"),), plain=())
    text = report(one, Scores(None, ScoreMatrix("CLIP-T", 1, (ConceptScores("<a>", 1, (0.25,), 0.2),)), None))
    assert "backward transfer: none" in text and "nan" not in text and "guard" not in text


def white_margins(picture: torch.Tensor, pixels: int = 4) -> bool:
    page = picture[0]
    edges = (page[:pixels], page[-pixels:], page[:, :pixels], page[:, -pixels:])
    return all(bool((edge == 1.0).all()) for edge in edges)


def staircase(count: int, name: str = "<c{}>", value: float | None = None) -> ScoreMatrix:
    rows = (
        ConceptScores(
            name.format(t),
            t,
            tuple(value or 0.9 - 0.01 * t - 0.02 * k for k in range(count - t + 1)),
            value or 0.4,
        )
        for t in range(1, count + 1)
    )
    return ScoreMatrix("CLIP-I", count, tuple(rows))


@pytest.mark.parametrize(
    "matrix",
    [MATRIX, staircase(1), staircase(14), staircase(3, LONG + "{}"), staircase(2, value=0.5), staircase(25)],
    ids=["three", "one", "fourteen", "long names", "all equal", "twenty-five"],
)
def test_plots_cut_nothing_off(matrix: ScoreMatrix) -> None:
    for picture in (heat_map(matrix), course(matrix)):
        assert picture.shape[0] == 1 and picture.shape[3] == 3 and picture.dtype == torch.float32
        assert white_margins(picture) and float(picture.min()) < 0.5


def test_the_heat_map_is_yellow_where_the_score_is_highest() -> None:
    page = heat_map(MATRIX)[0]
    yellow = (page[..., 0] > 0.9) & (page[..., 2] < 0.15)
    rows, columns = torch.nonzero(yellow, as_tuple=True)
    in_map = rows < 116 + 3 * 40
    top = rows[in_map] < 116 + 40
    # 0.90 is the score of the first concept at stage 2, and of the third at stage 3.
    assert set(((columns[in_map][top] - 214) // 84).tolist()) == {2}
    assert set(((columns[in_map][~top] - 214) // 84).tolist()) == {3}


def test_a_sheet_leaves_places_empty_and_stays_below_a_size() -> None:
    red = Image.new("RGB", (64, 64), "red")
    page = picture_grid(["0", "1"], [("a", [red, red]), (LONG, [None, red])], "title", "note")[0]
    pure_red = (page[..., 0] == 1) & (page[..., 1] == 0)
    assert int(pure_red.sum()) == 3 * 192 * 192
    many = picture_grid([str(n) for n in range(40)], [("row", [red] * 40)] * 40, "title", "note")
    assert white_margins(many) and many[0].numel() // 3 < 50_000_000
