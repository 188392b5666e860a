"""The committed pictures of the concepts, how they are made, and the sets that they are learnt in."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from small_base.layout import SIZES
from small_base.world.concepts import Concept, read_concepts
from small_base.world.palette import COLOURS
from small_base.world.references import ReferenceMaker, folder_name, write_references
from small_base.world.sets import SETS_FOLDER, SetError, read_set, set_paths, token_of
from small_base.world.world import SMALL_SCENES, World, WorldObject

IMAGES = Path(__file__).parents[2] / "workflows" / "images"
CONCEPTS = read_concepts().concepts
PICTURES = {"subject": 5, "style": 6, "scene": 6}


@pytest.fixture(scope="module")
def world() -> World:
    """Eight small things in two styles and a held-out one, as filled squares; places of one colour each."""
    names = [*(f"thing {number}" for number in range(8)), "panda"]
    objects = tuple(
        WorldObject(name, f"kind {name}", (), small=name != "panda", held_out=name == "panda")
        for name in names
    )
    colours = list(COLOURS.values())
    sprites = np.zeros((18, 96, 96, 4), np.uint8)
    for index, sprite in enumerate(sprites):
        sprite[2:94, 10:86] = (*colours[index % 3], 255)
    scenes = {
        name: np.full((8, 128, 128, 3), 30 * number + 60, np.uint8)
        for number, name in enumerate((*SMALL_SCENES, "volcano"))
    }
    return World(
        objects=objects,
        styles=("twemoji", "openmoji"),
        sprites=sprites,
        sprite_object=np.repeat(np.arange(9, dtype=np.int32), 2),
        sprite_style=np.tile(np.arange(2, dtype=np.int32), 9),
        scenes=scenes,
        held_out_styles=frozenset({"openmoji"}),
        held_out_scenes=frozenset({"volcano"}),
    )


def concept(name: str) -> Concept:
    return next(one for one in CONCEPTS if one.name == name)


@pytest.mark.parametrize("one", CONCEPTS, ids=lambda one: one.name)
def test_committed_pictures_of_a_concept(one: Concept) -> None:
    folder = IMAGES / folder_name(one)
    said = json.loads((folder / "concept.json").read_text(encoding="utf-8"))
    assert said == {"name": one.name, "class_word": one.class_word, "kind": one.kind}
    pictures = sorted(folder.glob("*.png"))
    assert [path.stem for path in pictures] == [f"{n:02}" for n in range(1, PICTURES[one.kind] + 1)]
    seen = set()
    for path in pictures:
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((128, 128), "RGB")
            seen.add(image.tobytes())
        captions = path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
        assert len(captions) == 3 and all(caption.count("{}") == 1 for caption in captions)
        spoken = " ".join(captions).replace("{}", "")
        assert not any(word in spoken.split() for word in one.words)
    assert len(seen) == len(pictures)


def test_nothing_else_is_there_and_all_is_small() -> None:
    assert {path.name for path in IMAGES.iterdir() if path.is_dir()} == set(map(folder_name, CONCEPTS))
    assert sum(path.stat().st_size for path in IMAGES.rglob("*") if path.is_file()) <= 3_000_000


def test_names_of_folders() -> None:
    assert folder_name(concept("my-panda")) == "panda"
    assert folder_name(concept("my-blueprint")) == "blueprint-style"
    assert folder_name(concept("my-reef")) == "reef-place"


def test_subjects_are_alone_on_backgrounds_that_differ(world: World) -> None:
    found = ReferenceMaker(world, 1).of(concept("my-panda"))
    assert len(found) == 5 and all(one.picture.shape == (3, 128, 128) for one in found)
    corners = {tuple(one.picture[:, 0, 0].tolist()) for one in found}
    assert len(corners) == 5
    # The square is never on its own colour, which a corner shows.
    assert all((one.picture - one.picture[:, :1, :1]).abs().amax() > 0.2 for one in found)
    places = [one.captions[1].removeprefix("{} ") for one in found]
    assert len(set(places)) == 5 and all("background" in place for place in places[:3])


def test_things_stand_as_a_small_base_knows_them(world: World) -> None:
    calm = SIZES["s"].variety
    for name in ("my-panda", "my-openmoji", "my-volcano"):
        found = ReferenceMaker(world, 1, calm).of(concept(name))
        assert len(found) == len(ReferenceMaker(world, 1).of(concept(name)))
    square = ReferenceMaker(world, 1, calm).of(concept("my-panda"))[0].picture
    inside = (square - square[:, :1, :1]).abs().amax(0) > 0.1
    rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
    assert inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].float().mean() > 0.9  # not tilted


def test_styles_show_things_that_the_base_knows(world: World) -> None:
    found = ReferenceMaker(world).of(concept("my-openmoji"))
    things = {one.captions[0].split(" in {}")[0] for one in found}
    assert len(found) == len(things) == 6 and not any("panda" in thing for thing in things)
    printed = ReferenceMaker(world).of(concept("my-blueprint"))
    assert all("background" not in text for one in printed for text in one.captions)
    assert all(one.picture[2].mean() > one.picture[0].mean() for one in printed)  # blue paper


def test_places_hold_things_and_one_is_empty(world: World) -> None:
    found = ReferenceMaker(world).of(concept("my-volcano"))
    assert len(found) == 6 and found[-1].captions[0] == "{}"
    assert [one.picture.std() > 0 for one in found] == [True] * 5 + [False]


def test_too_few_things_for_a_place_are_an_error(world: World) -> None:
    few = replace(world, sprites=world.sprites[:6], sprite_object=world.sprite_object[:6])
    few = replace(few, sprite_style=world.sprite_style[:6])
    with pytest.raises(ValueError, match=r"Only 3 things show well in the scene 'volcano', and 5 are needed"):
        ReferenceMaker(few).of(concept("my-volcano"))


def test_a_seed_writes_the_same_files_and_removes_stale_ones(world: World, tmp_path: Path) -> None:
    chosen = [concept("my-panda"), concept("my-volcano")]
    (tmp_path / "one" / "panda").mkdir(parents=True)
    (tmp_path / "one" / "panda" / "09.png").touch()
    size = write_references(world, chosen, tmp_path / "one", seed=3)
    write_references(world, reversed(chosen), tmp_path / "two", seed=3)
    files = {path.relative_to(tmp_path / "one"): path for path in (tmp_path / "one").rglob("*.*")}
    assert len(files) == 2 * 5 + 2 * 6 + 2 and size == sum(path.stat().st_size for path in files.values())
    assert all((tmp_path / "two" / name).read_bytes() == path.read_bytes() for name, path in files.items())


def test_sets_are_like_the_papers() -> None:
    sets = [read_set(path) for path in set_paths()]
    kinds = []
    for one in sets:
        assert len(one.concepts) == 7
        animals = {"dog", "bird", "cat", "fish", "insect", "horse", "bear", "animal"}
        counted = Counter(
            "animal" if c.class_word in animals else "object" if c.kind == "subject" else c.kind
            for c in one.concepts
        )
        kinds.append(dict(counted))
        single, double, triple = (len(one.prompts[group]) for group in ("single", "double", "triple"))
        assert (single, double + triple) == (10, 30)
        used = Counter(c.name for group in one.prompts.values() for p in group for c in one.concepts_in(p))
        assert set(used) == {c.name for c in one.concepts} and max(used.values()) - min(used.values()) <= 2
        spoken = [p for group in one.prompts.values() for p in group]
        assert len(set(spoken)) == 40
    assert kinds == [
        {"animal": 3, "object": 2, "style": 2},
        {"animal": 3, "scene": 2, "object": 1, "style": 1},
        {"animal": 2, "object": 3, "scene": 1, "style": 1},
    ]
    times = Counter(c.name for one in sets for c in one.concepts)
    assert set(times) == {c.name for c in CONCEPTS} and sorted(times.values()) == [1] * 19 + [2]


def test_a_prompt_names_its_concepts_in_order() -> None:
    one = read_set(SETS_FOLDER / "set1.json")
    last, first = one.concepts[-1], one.concepts[0]
    assert one.concepts_in(f"{token_of(last)} left of {token_of(first)}, blue background") == (last, first)
    assert one.concepts_in("a cat") == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"concepts": ["my-panda", "my-yeti"]}, "my-yeti is unknown"),
        ({"concepts": ["my-panda", "my-panda"]}, "each name may come once"),
        ({"prompts": {"single": []}}, "has the prompts"),
        ({"prompts": {"single": ["<my-reef>"], "double": [], "triple": []}}, "single: '<my-reef>'"),
        ({"prompts": {"single": [], "double": ["<my-panda>"], "triple": []}}, "expected are 2 of"),
    ],
)
def test_a_bad_set_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    read = {"concepts": ["my-panda"], "prompts": {"single": ["<my-panda>"], "double": [], "triple": []}}
    path = tmp_path / "set.json"
    path.write_text(json.dumps(read), encoding="utf-8")
    assert [one.name for one in read_set(path).concepts] == ["my-panda"]
    path.write_text(json.dumps({**read, **change}), encoding="utf-8")
    with pytest.raises(SetError, match=message):
        read_set(path)
