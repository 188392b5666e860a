"""Captions: true to the scene, right in their grammar, said as often as promised."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from small_base.world import wording
from small_base.world.wording import Background, Placed, Scene, Shares, article, caption, relation, where
from small_base.world.world import World, WorldObject

ALWAYS = Shares(style=1, background=1, category=0, size=0, relation=1, filler=0)
NAMES_ONLY = Shares(style=0, background=0, category=0, size=0, relation=1, filler=0)


@pytest.fixture
def world() -> World:
    names = (("cat", "animal"), ("teapot", "thing"), ("red apple", "fruit"), ("orange", "fruit"))
    return World(
        objects=tuple(WorldObject(name, category, (), True, False) for name, category in names),
        styles=("noto", "openmoji"),
        sprites=np.zeros((0, 96, 96, 4), np.uint8),
        sprite_object=np.zeros(0, np.int32),
        sprite_style=np.zeros(0, np.int32),
        scenes={},
        held_out_styles=frozenset(),
        held_out_scenes=frozenset(),
    )


def alone(thing: int = 0, style: int = 0, size: float = 0.7, **background) -> Scene:
    return Scene(Background(**background or {"colours": ("blue",)}), (Placed(thing, style, 0.5, 0.5, size),))


def two(
    first: tuple[float, float], second: tuple[float, float], styles=(0, 0), sizes=(0.4, 0.4), things=(0, 1)
) -> Scene:
    return Scene(
        Background(colours=("blue",)),
        (
            Placed(things[0], styles[0], *first, sizes[0]),
            Placed(things[1], styles[1], *second, sizes[1]),
        ),
    )


def captions(scene: Scene, world: World, count: int = 400, **options) -> list[str]:
    rng = random.Random(3)
    return [caption(scene, world, rng, **options) for _ in range(count)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("cat", "a cat"),
        ("animal", "an animal"),
        ("orange carrot", "an orange carrot"),
        ("unicorn", "a unicorn"),
        ("unicycle", "a unicycle"),
        ("ufo", "a ufo"),
        ("umbrella", "an umbrella"),
        ("hourglass", "an hourglass"),
        ("one-piece swimsuit", "a one-piece swimsuit"),
        ("onion", "an onion"),
        ("ewe", "a ewe"),
        ("grapes", "some grapes"),
        ("noto style grapes", "some noto style grapes"),
        ("clothes", "some clothes"),
        ("octopus", "an octopus"),
        ("compass", "a compass"),
        ("bus", "a bus"),
        ("suv", "an suv"),
        ("bread", "some bread"),
        ("toilet paper", "some toilet paper"),
        ("ear of corn", "an ear of corn"),
        ("bunch of grapes", "a bunch of grapes"),
        ("openmoji style cat", "an openmoji style cat"),
    ],
)
def test_article(words: str, expected: str) -> None:
    assert article(words) == expected


@pytest.mark.parametrize(
    ("scene", "expected"),
    [
        ("beach", "on a beach"),
        ("night", "at night"),
        ("snow", "in the snow"),
        ("orchard", "in an orchard"),
        ("lake", "at the lake"),
        ("space", "in space"),
    ],
)
def test_where(scene: str, expected: str) -> None:
    assert where(scene) == expected


@pytest.mark.parametrize(
    "templates",
    [
        wording.LEADS,
        wording.STYLE_LEADS,
        wording.STYLE_TAILS,
        wording.PLAIN_PLACES,
        wording.GRADIENT_PLACES,
        wording.SCENE_PLACES,
        *wording.RELATIONS.values(),
        wording.UNORDERED,
        wording.BESIDE,
    ],
)
def test_every_template_fills(templates: tuple[str, ...]) -> None:
    words = ("a", "b", "things", "style", "a_style", "colour", "a_colour", "other", "where", "scene")
    for template in templates:
        fields = re.findall(r"{(\w+)}", template)
        text = template.format(**{word: f"<{word}>" for word in words})
        assert fields and "{" not in text
        assert all(f"<{field}>" in text for field in fields)


def test_every_wording_is_used(world: World) -> None:
    scenes = [
        alone(),
        alone(colours=("red", "teal")),
        alone(scene="beach"),
        two((0.2, 0.5), (0.8, 0.5)),
        two((0.5, 0.2), (0.5, 0.8)),
        two((0.4, 0.4), (0.6, 0.6)),
    ]
    seen = "\n".join(text for scene in scenes for text in captions(scene, world, 600))
    for lead in (*wording.LEADS, *wording.STYLE_LEADS):
        assert lead.split("{things}")[0].format(style="noto", a_style="a noto") in seen
    for tail in wording.STYLE_TAILS:
        assert tail.format(style="noto") in seen
    for pair in (*(text for texts in wording.RELATIONS.values() for text in texts), *wording.BESIDE):
        assert re.search(pair.format(a="(cat|teapot|animal|thing)", b=".*(cat|teapot|animal|thing)"), seen)
    assert (
        "blue background" in seen and "on a gradient from red to teal" in seen and "beach background" in seen
    )


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0.2, 0.5), (0.8, 0.5), "left of"),
        ((0.8, 0.55), (0.2, 0.45), "right of"),
        ((0.5, 0.2), (0.55, 0.8), "above"),
        ((0.5, 0.8), (0.5, 0.2), "below"),
        ((0.3, 0.3), (0.7, 0.7), None),
        ((0.5, 0.5), (0.55, 0.5), None),
    ],
)
def test_relation(first: tuple[float, float], second: tuple[float, float], expected: str | None) -> None:
    assert relation(Placed(0, 0, *first, 0.4), Placed(1, 0, *second, 0.4)) == expected


def test_relations_told_are_true_whichever_comes_first(world: World) -> None:
    texts = set(captions(two((0.2, 0.5), (0.8, 0.5)), world, shares=NAMES_ONLY))
    assert any("cat left of" in text for text in texts)
    assert any(re.search("teapot (to the )?right of (a )?cat", text) for text in texts)
    for text in texts:
        assert "above" not in text and "below" not in text
        assert not re.search(r"cat (to the |on the )?right|teapot (to the |on the )?left", text), text

    texts = set(captions(two((0.5, 0.8), (0.5, 0.2)), world, shares=NAMES_ONLY))
    assert any("cat below" in text for text in texts) and any("teapot above" in text for text in texts)
    for text in texts:
        assert "left" not in text and "right" not in text
        assert not re.search("cat (above|at the top)|teapot (below|at the bottom)", text), text


@pytest.mark.parametrize(
    ("first", "second"), [((0.2, 0.5), (0.8, 0.5)), ((0.5, 0.2), (0.5, 0.8)), ((0.3, 0.3), (0.7, 0.8))]
)
@pytest.mark.parametrize("backwards", [0.0, 1.0])
def test_things_are_named_in_the_order_in_which_one_reads(
    world: World, first: tuple[float, float], second: tuple[float, float], backwards: float
) -> None:
    shares = replace(NAMES_ONLY, backwards=backwards)
    texts = captions(two(first, second), world, 50, shares=shares)
    texts += captions(two(second, first, things=(1, 0)), world, 50, shares=shares)
    assert all((text.index("cat") > text.index("teapot")) == bool(backwards) for text in texts)


def test_no_relation_is_told_of_what_stands_askew(world: World) -> None:
    texts = captions(two((0.3, 0.3), (0.7, 0.7)), world, shares=NAMES_ONLY)
    assert not any(re.search("left|right|above|below|top|bottom", text) for text in texts)


def test_shares_are_kept(world: World) -> None:
    texts = captions(alone(size=0.5), world, 4000)
    count = len(texts)
    assert sum("noto" in text for text in texts) / count == pytest.approx(0.6, abs=0.03)
    assert sum("blue" in text for text in texts) / count == pytest.approx(0.85, abs=0.03)
    assert sum("animal" in text for text in texts) / count == pytest.approx(0.15, abs=0.03)
    assert sum("small" in text for text in texts) / count == pytest.approx(0.25, abs=0.03)
    fillers = sum(any(word in text for word in wording.FILLERS) for text in texts)
    assert fillers / count == pytest.approx(0.04, abs=0.015)
    assert any(text == "cat" for text in texts)
    assert any(text == "a photo of a cat" for text in texts)


def test_captions_are_clean(world: World) -> None:
    scenes = [
        alone(3, 1, scene="forest"),
        two((0.2, 0.5), (0.8, 0.5), styles=(0, 1)),
        alone(colours=("orange",)),
    ]
    for text in (text for scene in scenes for text in captions(scene, world)):
        assert text == text.strip() and "  " not in text and " ," not in text and "{" not in text
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text), text


def test_two_styles_go_each_with_its_own_thing(world: World) -> None:
    texts = captions(two((0.2, 0.5), (0.8, 0.5), styles=(0, 1)), world, shares=ALWAYS)
    assert all("noto style cat" in text and "openmoji style teapot" in text for text in texts)


def test_small_and_large_in_pairs_are_by_comparison(world: World) -> None:
    shares = Shares(style=0, category=0, size=1)
    unlike = captions(two((0.2, 0.5), (0.8, 0.5), sizes=(0.35, 0.5)), world, shares=shares)
    assert all("small cat" in text and "large teapot" in text for text in unlike)
    alike = captions(two((0.2, 0.5), (0.8, 0.5), sizes=(0.35, 0.38)), world, shares=shares)
    assert not any("small" in text or "large" in text for text in alike)
    assert all("large cat" in text for text in captions(alone(size=0.82), world, shares=shares))


def test_a_second_thing_of_the_same_name_is_another(world: World) -> None:
    shares = Shares(style=0, category=1, size=0)
    texts = captions(two((0.2, 0.5), (0.8, 0.5), things=(2, 3)), world, shares=shares)
    assert all(re.search("fruit.*another fruit", text) for text in texts)


def test_other_words_for_a_name(world: World) -> None:
    texts = captions(alone(), world, name_words={"cat": "zwx cat"})
    assert all("zwx cat" in text for text in texts)
    assert not any("teapot" in text for text in texts)


def test_own_fillers(world: World) -> None:
    texts = captions(alone(), world, shares=Shares(filler=1), fillers=("lorem",))
    assert all(text.endswith(", lorem") for text in texts)


def test_the_same_seed_says_the_same(world: World) -> None:
    assert captions(alone(), world) == captions(alone(), world)
    assert len(Counter(captions(alone(), world))) > 100


@pytest.mark.parametrize(
    "background", [{}, {"colours": ("red",), "scene": "beach"}, {"colours": ("red", "blue", "green")}]
)
def test_a_background_is_one_thing(background: dict) -> None:
    with pytest.raises(ValueError, match="one colour, two, or a scene"):
        Background(**background)


def test_a_scene_has_one_thing_or_two() -> None:
    with pytest.raises(ValueError, match="one thing or two; this has 0"):
        Scene(Background(colours=("red",)), ())
