"""Pictures of scenes: things where the record says, clean edges, backgrounds that can be read back."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from small_base.world.compose import Composer, background_colour
from small_base.world.palette import COLOURS
from small_base.world.placing import SceneSampler, Variety, blends_in
from small_base.world.prompts import evaluation_prompts
from small_base.world.wording import Background, Placed, Scene, relation
from small_base.world.world import SPRITE_SIZE, World, WorldObject

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def disc(colour: tuple[int, int, int], *, half: tuple[int, int, int] | None = None) -> np.ndarray:
    """A full disc; its right half of another colour if given. What is clear is black."""
    sprite = np.zeros((SPRITE_SIZE, SPRITE_SIZE, 4), np.uint8)
    down, across = np.mgrid[:SPRITE_SIZE, :SPRITE_SIZE] - (SPRITE_SIZE - 1) / 2
    sprite[..., :3] = colour
    if half:
        sprite[:, SPRITE_SIZE // 2 :, :3] = half
    inside = np.hypot(down, across) < 46
    sprite[..., 3] = 255 * inside
    sprite[~inside] = 0
    return sprite


def square() -> np.ndarray:
    sprite = np.zeros((SPRITE_SIZE, SPRITE_SIZE, 4), np.uint8)
    sprite[2:-2, 2:-2] = (255, 255, 255, 255)
    return sprite


@pytest.fixture(scope="module")
def world() -> World:
    sprites = [disc(RED), disc(GREEN), disc(RED, half=BLUE), square(), disc((200, 20, 20))]
    names = ("ball", "pea", "pill", "tile")
    place = np.zeros((2, 128, 128, 3), np.uint8)
    place[0, :, 64:] = 255  # right half white
    place[1] = 77
    return World(
        objects=tuple(WorldObject(name, "thing", (), True, False) for name in names),
        styles=("noto", "fluent"),
        sprites=np.stack(sprites),
        sprite_object=np.array([0, 1, 2, 3, 0], np.int32),
        sprite_style=np.array([0, 0, 0, 0, 1], np.int32),
        scenes={"beach": place},
        held_out_styles=frozenset(),
        held_out_scenes=frozenset(),
    )


def on(colour: str, *placed: Placed) -> Scene:
    return Scene(Background(colours=(colour,)), placed)


def like(picture: torch.Tensor, colour: tuple[int, int, int]) -> torch.Tensor:
    """Where a picture (3, H, W) is nearly of a colour: bool (H, W)."""
    return (picture - torch.tensor(colour).view(3, 1, 1) / 255).abs().amax(0) < 0.08


def centre(mask: torch.Tensor) -> tuple[float, float]:
    """The middle of a mask as x, y in 0..1."""
    down, across = torch.nonzero(mask, as_tuple=True)
    return float((across.float().mean() + 0.5) / mask.shape[1]), float(
        (down.float().mean() + 0.5) / mask.shape[0]
    )


@pytest.mark.parametrize("size", [64, 128])
def test_things_are_where_the_record_says(world: World, size: int) -> None:
    scene = on("black", Placed(0, 0, 0.3, 0.4, 0.4), Placed(1, 0, 0.75, 0.6, 0.3))
    picture = Composer(world, size).render([scene])[0]
    assert picture.shape == (3, size, size)
    assert centre(like(picture, RED)) == pytest.approx((0.3, 0.4), abs=0.01)
    assert centre(like(picture, GREEN)) == pytest.approx((0.75, 0.6), abs=0.01)
    drawn = int(like(picture, RED).sum()) / size**2
    assert drawn == pytest.approx(math.pi * (0.4 * 46 / 96) ** 2, rel=0.12)


def test_relations_are_true_in_the_picture(world: World) -> None:
    sampler = SceneSampler(world, 64, 5, pairs=1, plain=1, gradient=0)
    composer = Composer(world, 64)
    seen = set()
    for scene in sampler.sample(60):
        first, second = scene.placed
        if {first.object_index, second.object_index} != {0, 1} or first.style_index or second.style_index:
            continue
        scene = replace(scene, background=Background(colours=("black",)))
        picture = composer.render([scene])[0]
        (ax, ay), (bx, by) = (
            centre(like(picture, (RED, GREEN)[one.object_index])) for one in (first, second)
        )
        said = relation(first, second)
        seen.add(said)
        if said is not None:
            assert {"left of": ax < bx, "right of": ax > bx, "above": ay < by, "below": ay > by}[said]
    assert len(seen) >= 3


def test_later_things_are_in_front(world: World) -> None:
    picture = Composer(world, 64).render(
        [on("black", Placed(0, 0, 0.5, 0.5, 0.6), Placed(1, 0, 0.5, 0.5, 0.3))]
    )[0]
    assert like(picture, GREEN)[32, 32] and like(picture, RED)[32, 16]


def test_no_dark_fringes(world: World) -> None:
    # Red on red: the edges of the sprite mustn't show at all, though its clear pixels are black.
    scene = Scene(
        Background(colours=("red",), shades=((255 - 214, -48, -49),)), (Placed(0, 0, 0.47, 0.52, 0.61, 17.0),)
    )
    picture = Composer(world, 64).render([scene])[0]
    assert torch.allclose(picture[0], torch.ones(64, 64), atol=0.012)
    assert picture[1:].abs().max() < 0.012


def test_edges_are_between_thing_and_ground(world: World) -> None:
    picture = Composer(world, 64).render([on("black", Placed(3, 0, 0.5, 0.5, 0.5, 20.0))])[0]
    ground = COLOURS["black"][0] / 255
    partly = (picture[0] > ground + 0.05) & (picture[0] < 0.95)
    # An edge without smoothing has no such pixels; a blurred one has them two wide.
    assert 80 < int(partly.sum()) < 260


def test_mirror_and_tilt(world: World) -> None:
    composer = Composer(world, 64)
    pill = Placed(2, 0, 0.4, 0.5, 0.6)
    plain, mirrored, tilted, both = composer.render(
        [on("black", one) for one in (pill, replace(pill, mirror=True), replace(pill, tilt=25.0))]
        + [on("black", replace(pill, mirror=True, tilt=25.0))]
    )
    assert centre(like(plain, RED))[0] < 0.4 < centre(like(plain, BLUE))[0]
    assert centre(like(mirrored, BLUE))[0] < 0.4 < centre(like(mirrored, RED))[0]
    # Clockwise: what is on the right goes down.
    assert centre(like(tilted, BLUE))[1] > 0.52 and centre(like(both, RED))[1] > 0.52
    assert centre(like(tilted, BLUE))[0] > 0.4


def test_backgrounds(world: World) -> None:
    composer = Composer(world, 64)
    thing = (Placed(0, 0, 0.5, 0.5, 0.3),)
    colours = ("black", "white")
    shaded, down, across, place, flipped = composer.render(
        [
            Scene(Background(colours=("teal",), shades=((3, -4, 5),)), thing),
            Scene(Background(colours=colours), thing),
            Scene(Background(colours=colours, direction=(-1, 1)), thing),
            Scene(Background(scene="beach"), thing),
            Scene(Background(scene="beach", mirror=True), thing),
        ]
    )
    assert (shaded[:, 0, 0] * 255).round().tolist() == [53, 161, 170]
    assert down[0, 0].max() < 0.12 and down[0, -1].min() > 0.93 and (down[0, 1:, 0] >= down[0, :-1, 0]).all()
    assert (
        across[0, 0, -1] < 0.12
        and across[0, -1, 0] > 0.93
        and across[0, 0, 0] == pytest.approx(0.53, abs=0.02)
    )
    assert place[0, 0, 0] < 0.01 and place[0, 0, -1] > 0.99
    assert flipped[0, 0, 0] > 0.99 and flipped[0, 0, -1] < 0.01


def test_a_batch_is_the_same_as_one_by_one(world: World) -> None:
    composer = Composer(world, 32)
    scenes = SceneSampler(world, 32, 1).sample(24)
    assert torch.allclose(
        composer.render(scenes), torch.cat([composer.render([scene]) for scene in scenes]), atol=1e-5
    )


def test_dtype_and_range(world: World) -> None:
    pictures = Composer(world, 32, dtype=torch.bfloat16).render(SceneSampler(world, 32, 1).sample(8))
    assert pictures.dtype == torch.bfloat16 and pictures.min() >= 0 and pictures.max() <= 1


def test_the_background_colour_is_read_back(world: World) -> None:
    scenes = SceneSampler(world, 64, 2, pairs=0.5, plain=1, gradient=0).sample(120)
    read = background_colour(Composer(world, 64).render(scenes))
    assert read == [scene.background.colours[0] for scene in scenes]
    assert len(set(read)) > 8


def test_sampled_scenes_keep_to_the_rules(world: World) -> None:
    scenes = SceneSampler(world, 64, 0).sample(2000)
    pairs = [scene for scene in scenes if len(scene.placed) == 2]
    plain = [scene for scene in scenes if len(scene.background.colours) == 1]
    gradients = [scene for scene in scenes if len(scene.background.colours) == 2]
    assert len(pairs) / 2000 == pytest.approx(0.35, abs=0.04)
    assert len(plain) / 2000 == pytest.approx(0.45, abs=0.04)
    assert len(gradients) / 2000 == pytest.approx(0.10, abs=0.03)
    assert sum(scene.placed[0].mirror for scene in scenes) / 2000 == pytest.approx(0.5, abs=0.04)
    assert all(abs(one.tilt) <= 25 for scene in scenes for one in scene.placed)
    assert all(first.object_index != second.object_index for first, second in (s.placed for s in pairs))
    told = sum(relation(*scene.placed) is not None for scene in pairs)
    assert told / len(pairs) > 0.85
    assert {scene.background.variant for scene in scenes} == {0, 1}


def test_sampled_things_are_inside_the_picture(world: World) -> None:
    # White tiles on black: whatever their tilt, the outermost pixels stay black.
    scenes = [
        replace(scene, background=Background(colours=("black",)))
        for scene in SceneSampler(world, 64, 3).sample(150)
    ]
    pictures = Composer(world, 64).render(scenes)
    edge = torch.ones(64, 64, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    assert (pictures[:, :, edge] - 22 / 255).abs().max() < 0.1


def test_pairs_cover_each_other_little(world: World) -> None:
    composer = Composer(world, 64)
    for scene in SceneSampler(world, 64, 4, pairs=1).sample(60):
        black = Background(colours=("black",))
        first, second = composer.render([Scene(black, (one,)) for one in scene.placed])
        seen = [(picture.amax(0) > 0.5) for picture in (first, second)]
        common = (seen[0] & seen[1]).sum() / min(seen[0].sum(), seen[1].sum())
        assert common < 0.12


def test_frames_fill_whole_cells_where_that_is_asked_for(world: World) -> None:
    calm = Variety(alone=(0.6, 0.8), in_pairs=(0.5, 0.5), tilt=0.0, mirrored=0.0, cells=8)
    scenes = SceneSampler(world, 64, 4, pairs=0.5, variety=calm).sample(200)
    assert {len(scene.placed) for scene in scenes} == {1, 2}
    for scene in scenes:
        for one in scene.placed:
            assert one.size * 8 in ((5, 6) if len(scene.placed) == 1 else (4,))
            assert one.tilt == 0 and not one.mirror
            for centre in (one.x, one.y):
                first = (centre - one.size / 2) * 8
                assert first == int(first) and 0 <= first <= 8 - one.size * 8
    frames = {(one.x, one.y) for scene in scenes for one in scene.placed if len(scene.placed) == 1}
    assert len(frames) > 4


def test_nothing_is_put_on_its_own_colour(world: World) -> None:
    lost = dict(zip(COLOURS, blends_in(world)[3], strict=True))
    assert lost["white"] and not lost["black"]
    for scene in SceneSampler(world, 64, 6, plain=1, gradient=0).sample(300):
        if any(one.object_index == 3 for one in scene.placed):
            assert scene.background.colours != ("white",)


def test_the_same_seed_draws_the_same(world: World) -> None:
    scenes = SceneSampler(world, 64, 9).sample(50)
    assert scenes == SceneSampler(world, 64, 9).sample(50)
    assert scenes == SceneSampler(world, 64, 1).sample(50, random.Random(9))
    assert scenes != SceneSampler(world, 64, 10).sample(50)
    composer = Composer(world, 32)
    assert torch.equal(composer.render(scenes), composer.render(scenes))


def test_errors_name_what_is_missing(world: World) -> None:
    composer = Composer(world, 32)
    with pytest.raises(ValueError, match="Object 1 has no sprite in style 1"):
        composer.render([on("red", Placed(1, 1, 0.5, 0.5, 0.5))])
    with pytest.raises(ValueError, match="No colour is named 'mauve'"):
        composer.render([on("mauve", Placed(1, 0, 0.5, 0.5, 0.5))])
    with pytest.raises(ValueError, match="it has \\[0\\]"):
        SceneSampler(world, 32, 0).place([(1, 1)], random.Random(0))
    bare = replace(
        world,
        sprites=world.sprites[:0],
        sprite_object=world.sprite_object[:0],
        sprite_style=world.sprite_style[:0],
    )
    with pytest.raises(ValueError, match="no sprites"):
        SceneSampler(bare, 32, 0)


def test_a_world_without_places_has_colours_only(world: World) -> None:
    bare = replace(world, scenes={})
    assert all(scene.background.colours for scene in SceneSampler(bare, 64, 0).sample(50))
    assert all(prompt.colour for prompt in evaluation_prompts(bare, 20))


def test_evaluation_prompts(world: World) -> None:
    prompts = evaluation_prompts(world, 200, 1)
    assert prompts == evaluation_prompts(world, 200, 1) != evaluation_prompts(world, 200, 2)
    assert prompts[:40] == evaluation_prompts(world, 40, 1)
    singles = [prompt for prompt in prompts if len(prompt.objects) == 1]
    assert len(singles) == 150
    assert sum(prompt.colour is not None for prompt in singles) == 120
    for prompt in prompts:
        assert all(name in prompt.text for name in prompt.objects)
        assert (prompt.colour is None) != (prompt.scene is None)
        assert (prompt.colour or prompt.scene) in prompt.text
        assert (prompt.style in prompt.text) if prompt.style else "style" not in prompt.text
    assert {prompt.style for prompt in prompts} == {None, "noto", "fluent"}
    assert {prompt.colour for prompt in prompts} == {None, *COLOURS}
    assert {name for prompt in prompts for name in prompt.objects} == {"ball", "pea", "pill", "tile"}
