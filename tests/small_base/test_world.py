"""The world: its file, its parts, which emoji are chosen, and the picture transforms."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from small_base.world import world_file
from small_base.world.catalog import category, choose, clean, mentions, read_small
from small_base.world.concepts import Concept, Concepts, read_concepts
from small_base.world.scenery import SCENES, draw_scenes
from small_base.world.sources import EMOJIBASE, SourceError, code, obtain, sprite
from small_base.world.transforms import TRANSFORMS
from small_base.world.world import SCENE_SIZE, SMALL_SCENES, SPRITE_SIZE, World, WorldObject
from small_base.world.world_file import MAGIC, WorldFileError, read_world, write_world

STYLES = ("twemoji", "openmoji")


@pytest.fixture
def world() -> World:
    """Four objects in two styles, of few colours each; one object, one style and one scene are held out."""
    rng = np.random.default_rng(0)
    objects = tuple(
        WorldObject(name, "animal", (f"{name} word",), small=small, held_out=held_out)
        for name, small, held_out in (
            ("cat", True, False),
            ("yak", False, False),
            ("poodle", False, True),
            ("dog", True, False),
        )
    )
    colours = rng.integers(0, 256, (8, 100, 3), np.uint8)
    which = rng.integers(0, 100, (8, SPRITE_SIZE, SPRITE_SIZE))
    sprites = np.zeros((8, SPRITE_SIZE, SPRITE_SIZE, 4), np.uint8)
    sprites[..., :3] = np.stack([of[at] for of, at in zip(colours, which, strict=True)])
    sprites[:, 20:70, 20:70, 3] = rng.integers(1, 256, (8, 50, 50), np.uint8)
    sprites[sprites[..., 3] == 0] = 0
    plain = np.broadcast_to(np.array([10, 200, 30], np.uint8), (2, SCENE_SIZE, SCENE_SIZE, 3))
    return World(
        objects=objects,
        styles=STYLES,
        sprites=sprites,
        sprite_object=np.repeat(np.arange(4, dtype=np.int32), 2),
        sprite_style=np.tile(np.arange(2, dtype=np.int32), 4),
        scenes={"meadow": plain, "room": plain[:1] // 2, "volcano": plain[:1] // 3},
        held_out_styles=frozenset({"openmoji"}),
        held_out_scenes=frozenset({"volcano"}),
        tokenizer_files={"vocab.json": '{"é</w>": 0}', "merges.txt": "#version\na b\n"},
    )


def same(left: World, right: World) -> None:
    """Both worlds are equal in everything."""
    for name in ("objects", "styles", "held_out_styles", "held_out_scenes", "tokenizer_files"):
        assert getattr(left, name) == getattr(right, name)
    for name in ("sprites", "sprite_object", "sprite_style"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
        assert getattr(left, name).dtype == getattr(right, name).dtype
    assert list(left.scenes) == list(right.scenes)
    for name in left.scenes:
        np.testing.assert_array_equal(left.scenes[name], right.scenes[name])


def test_a_world_of_few_colours_comes_back_as_it_was(world: World, tmp_path: Path) -> None:
    write_world(world, tmp_path / "deep" / "world.bin")
    same(read_world(tmp_path / "deep" / "world.bin"), world)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["world.bin"]


def test_many_colours_become_256_and_then_stay(world: World, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    steps = np.linspace(0, 255, SPRITE_SIZE).astype(np.uint8)
    sprites = world.sprites.copy()
    sprites[0, ..., 0], sprites[0, ..., 1] = steps[:, None], steps[None, :]
    sprites[0, ..., 2], sprites[0, ..., 3] = rng.integers(0, 30, (SPRITE_SIZE, SPRITE_SIZE)), 255
    path = tmp_path / "world.bin"
    write_world(replace(world, sprites=sprites), path)
    once = read_world(path)
    assert len(np.unique(once.sprites[0].reshape(-1, 4), axis=0)) <= 256
    assert np.abs(once.sprites[0].astype(int) - sprites[0]).mean() < 6
    write_world(once, path)
    same(read_world(path), once)


def test_an_empty_world_has_a_file_too(world: World, tmp_path: Path) -> None:
    nothing = replace(
        world,
        objects=(),
        sprites=world.sprites[:0],
        sprite_object=world.sprite_object[:0],
        sprite_style=world.sprite_style[:0],
        scenes={},
        tokenizer_files={},
    )
    write_world(nothing, tmp_path / "world.bin")
    same(read_world(tmp_path / "world.bin"), nothing)


def test_damaged_and_foreign_files_are_refused(world: World, tmp_path: Path) -> None:
    path = tmp_path / "world.bin"
    write_world(world, path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-40] ^= 1
    cases = {
        "empty": (b"", "starts with"),
        "picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "starts with"),
        "magic alone": (MAGIC, "within its header"),
        "in the header": (whole[:60], "within its header"),
        "in a section": (whole[:-9], "ends within"),
        "flipped": (bytes(flipped), "damaged"),
        "longer": (whole + b"more", "follow its last section"),
        "deep": (MAGIC + (200_000).to_bytes(8, "little") + b"[" * 200_000, "not a world file"),
    }
    for data, words in cases.values():
        path.write_bytes(data)
        with pytest.raises(WorldFileError, match=words) as caught:
            read_world(path)
        assert str(path) in str(caught.value)
    with pytest.raises(FileNotFoundError):
        read_world(tmp_path / "none.bin")


def tampered(path: Path, change) -> None:
    """Rewrite the header of the world file at `path` after `change(header)`."""
    data = path.read_bytes()
    start = len(MAGIC) + 8
    end = start + int.from_bytes(data[len(MAGIC) : start], "little")
    header = json.loads(data[start:end])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(MAGIC + len(text).to_bytes(8, "little") + text + data[end:])


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["sections"][1].update(shape=[1 << 40]),
        lambda header: header["sections"][1].update(shape=[-8, -96, 96]),
        lambda header: header["sections"][1].update(shape=[8, 96, 97]),
        lambda header: header["sections"][1].update(shape=[96, 96, 8]),
        lambda header: header["sections"][1].update(shape="8"),
        lambda header: header["sections"][1].update(length=-1),
        lambda header: header["sections"][1].update(length=1.5),
        lambda header: header["sections"][1].update(name="something"),
        lambda header: header.update(sections=header["sections"][:1]),
        lambda header: header.update(objects=header["objects"][:1]),
        lambda header: header.update(styles=["twemoji"]),
        lambda header: header.update(scenes={"meadow": -1, "room": 5}),
        lambda header: header.update(scenes={"meadow": 3}),
        lambda header: header.update(scenes=[]),
        lambda header: header["objects"][0].update(extra=1),
        lambda header: header.clear(),
    ],
)
def test_a_header_that_lies_is_refused(world: World, tmp_path: Path, change) -> None:
    path = tmp_path / "world.bin"
    write_world(world, path)
    tampered(path, change)
    with pytest.raises(WorldFileError, match="Build or copy it again"):
        read_world(path)


def test_what_unpacks_to_too_much_is_refused(world: World, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "world.bin"
    write_world(world, path)
    monkeypatch.setattr(world_file, "LIMIT", 1000)
    with pytest.raises(WorldFileError, match="more than the 1000"):
        read_world(path)


def test_subset_keeps_what_its_use_may_see(world: World) -> None:
    def names(part: World) -> list[str]:
        return [thing.name for thing in part.objects]

    trained = world.subset(small=False, held_out=False)
    assert names(trained) == ["cat", "yak", "dog"]
    assert trained.styles == ("twemoji",) and list(trained.scenes) == ["meadow", "room"]
    assert trained.sprite_object.tolist() == [0, 1, 2] and trained.sprite_style.tolist() == [0, 0, 0]
    np.testing.assert_array_equal(trained.sprites, world.sprites[[0, 2, 6]])
    small = world.subset(small=True, held_out=False)
    assert names(small) == ["cat", "dog"] and list(small.scenes) == ["meadow"]
    judged = world.subset(small=True, held_out=True)
    assert names(judged) == ["cat", "poodle", "dog"] and judged.styles == STYLES
    assert list(judged.scenes) == ["meadow", "volcano"] and len(judged.sprites) == 6
    same(world.subset(small=False, held_out=True), world)


def test_size_s_knows_few_of_the_styles(world: World) -> None:
    other = replace(world, styles=("noto", "openmoji"))
    assert other.subset(small=False, held_out=False).styles == ("noto",)
    assert other.subset(small=True, held_out=False).styles == ()
    judged = other.subset(small=True, held_out=True)
    assert judged.styles == ("openmoji",) and judged.sprite_style.tolist() == [0, 0, 0]


SUBGROUPS = {1: "animal-mammal", 2: "animal-bug", 3: "flag", 4: "time", 5: "transport-ground"}
POODLE = Concept(0, "my-poodle", "subject", "dog", {"object": "poodle", "style": "fluent"}, ("poodle",))


def record(label: str, hexcode: str, subgroup: int, *tags: str) -> dict:
    """An Emojibase record as far as the catalogue reads it."""
    return {"label": label, "hexcode": hexcode, "subgroup": subgroup, "tags": list(tags)}


RECORDS = [
    record("dog", "1F415", 1, "pet", "poodle", "poodles", "dog"),
    record("poodle", "1F429", 1, "dog"),
    record("guide dog", "1F9AE", 1),
    record("Spider", "1F577-FE0F", 2, "Insect!"),
    record("flag: Chad", "1F1F9", 3),
    record("one o\N{RIGHT SINGLE QUOTATION MARK}clock", "1F550", 4),
    record("automobile", "1F697", 5),
    record("oncoming taxi", "1F696", 5),
    record("ant", "1F41C", 2),
    {"label": "regional indicator A", "hexcode": "1F1E6"},
]
DRAWN = [{code(one["hexcode"]) for one in RECORDS}, {code(one["hexcode"]) for one in RECORDS} - {"1f41c"}]
CONCEPTS = Concepts((POODLE,), frozenset({"guide dog"}))


def test_the_catalogue_takes_objects_that_all_styles_draw() -> None:
    entries = choose(RECORDS, SUBGROUPS, DRAWN, CONCEPTS, ["dog", "car"])
    found = {entry.thing.name: entry for entry in entries}
    assert list(found) == ["dog", "poodle", "spider", "car"]
    assert found["spider"].code == "1f577" and found["spider"].thing.category == "animal"
    assert found["car"].thing.category == "car" and found["car"].thing.small
    assert found["dog"].thing.keywords == ("pet",)
    assert found["spider"].thing.keywords == ()
    assert found["poodle"].thing == WorldObject("poodle", "animal", ("dog",), small=False, held_out=True)


@pytest.mark.parametrize(
    ("records", "concepts", "small", "words"),
    [
        ([*RECORDS, record("Dog", "1F415", 1)], CONCEPTS, [], "two objects are named 'dog'"),
        ([*RECORDS, record("poodle cross", "1F415", 1)], CONCEPTS, [], "something held out"),
        ([*RECORDS, record("dog: brown", "1F415", 1)], CONCEPTS, [], "cannot say 'dog: brown'"),
        (RECORDS, CONCEPTS, ["yak"], "no object is named yak"),
        (RECORDS[:1], CONCEPTS, [], "no object is named poodle"),
        (RECORDS, CONCEPTS, ["poodle"], "held out, and therefore not"),
    ],
)
def test_the_catalogue_refuses_lists_that_contradict(records, concepts, small, words) -> None:
    with pytest.raises(ValueError, match=words):
        choose(records, SUBGROUPS, DRAWN, concepts, small)


def test_names_are_cleaned() -> None:
    assert clean("Piñata") == "pinata"
    assert clean("woman\N{RIGHT SINGLE QUOTATION MARK}s boot") == "woman's boot"
    assert category("snail", "animal-bug") == "animal" and category("ant", "animal-bug") == "insect"
    assert mentions("two racing cars", ["racing car"]) and not mentions("popcorn", ["pop"])
    assert code("002A-FE0F-20E3") == "2a-20e3"


def test_the_committed_lists_are_in_order() -> None:
    concepts = read_concepts()
    kinds = [one.kind for one in concepts.concepts]
    assert (kinds.count("subject"), kinds.count("style"), kinds.count("scene")) == (14, 3, 3)
    assert [one.id for one in concepts.concepts] == list(range(20))
    assert len({one.name for one in concepts.concepts}) == 20
    assert concepts.held_out_styles() == {"openmoji"}
    transforms = {one.source["transform"] for one in concepts.concepts if "transform" in one.source}
    assert transforms == set(TRANSFORMS)
    assert concepts.held_out_scenes() < set(SCENES) and set(SMALL_SCENES) < set(SCENES)
    small = read_small()
    assert 170 <= len(small) <= 190
    assert not small & (set(concepts.held_out_objects()) | concepts.twins)
    assert not any(mentions(name, concepts.banned_words()) for name in small)
    assert not any(mentions(one.class_word, concepts.banned_words()) for one in concepts.concepts)


def test_transforms_redraw_batches_of_any_size() -> None:
    pictures = torch.zeros(2, 3, 64, 48)
    pictures[1, :, 16:48, 12:36] = torch.tensor([1.0, 0.8, 0.1]).view(3, 1, 1)
    for name, transform in TRANSFORMS.items():
        done = transform(pictures)
        assert done.shape == pictures.shape and done.dtype == pictures.dtype, name
        assert done.min() >= 0 and done.max() <= 1
        assert (done[0] - done[1]).abs().amax() > 0.3  # the square is still to be seen
        assert torch.equal(transform(pictures[1:]), done[1:])  # each picture by itself
        assert transform(torch.rand(0, 3, 32, 32)).shape == (0, 3, 32, 32)


def test_a_sprite_is_cropped_and_centred() -> None:
    drawing = Image.new("RGBA", (300, 300), (255, 0, 0, 0))
    drawing.paste((0, 0, 255, 255), (10, 20, 110, 70))
    pixels = sprite(drawing)
    down, across = np.nonzero(pixels[..., 3])
    assert pixels.shape == (96, 96, 4)
    assert (across.min(), across.max(), down.min(), down.max()) == (2, 93, 25, 70)
    assert (pixels[pixels[..., 3] > 0][:, :3] == (0, 0, 255)).all()  # none of the clear pixels' red
    assert not pixels[pixels[..., 3] == 0].any()
    with pytest.raises(SourceError, match="nothing visible"):
        sprite(Image.new("RGBA", (8, 8)))


def test_scenes_are_of_their_seed(monkeypatch) -> None:
    monkeypatch.setattr("small_base.world.scenery.TRAINED_VARIANTS", 2)
    monkeypatch.setattr("small_base.world.scenery.HELD_OUT_VARIANTS", 1)
    first, again, other = (draw_scenes(seed, {"volcano"}) for seed in (0, 0, 1))
    assert list(first) == list(SCENES)
    for name, variants in first.items():
        assert variants.shape == (1 if name == "volcano" else 2, SCENE_SIZE, SCENE_SIZE, 3)
        assert variants.dtype == np.uint8
        np.testing.assert_array_equal(variants, again[name])
        assert (variants != other[name]).any()


def test_packages_are_checked(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(SourceError, match="npm, which would fetch it, is not installed"):
        obtain(EMOJIBASE, tmp_path)
    (tmp_path / EMOJIBASE.tarball).write_bytes(b"something else")
    with pytest.raises(SourceError, match="not the pinned emojibase-data"):
        obtain(EMOJIBASE, tmp_path)
