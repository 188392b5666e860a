"""The figures of the bench: a judge that knows all gives full marks, one that mixes things up does not."""

from __future__ import annotations

import torch
from torch import Tensor

from small_base.judge.evaluate import Figure, figures_of_drawn
from small_base.judge.judge import Judge
from small_base.world.compose import Composer
from small_base.world.palette import COLOURS
from small_base.world.prompts import EvaluationPrompt
from small_base.world.world import World

PROMPTS = [
    EvaluationPrompt("a cat on red", ("cat",), None, "red", None),
    EvaluationPrompt("a pea on blue", ("pea",), None, "blue", None),
    EvaluationPrompt("a cat and a ball on grey", ("cat", "ball"), None, "grey", None),
    EvaluationPrompt("a ball on a beach", ("ball",), None, None, "beach"),
]


class FakeJudge:
    """Sees in a picture of one colour, and in its parts, what `seen` names for that colour."""

    def __init__(self, world: World, seen: dict[str, tuple[str, ...]]) -> None:
        self.names = [thing.name for thing in world.objects]
        self.seen = seen

    def pictures(self, images: Tensor) -> Tensor:
        pixels = [tuple((image[:, 0, 0] * 255).round().int().tolist()) for image in images]
        colours = {pixel: name for name, pixel in COLOURS.items()}
        return torch.tensor(
            [[float(name in self.seen[colours[pixel]]) for name in self.names] for pixel in pixels]
        )

    def pictures_and_parts(self, images: Tensor) -> Tensor:
        return self.pictures(images)[None]

    def sharpness(self) -> float:
        return 20.0

    def texts(self, texts: list[str]) -> Tensor:
        assert len(texts) == len(self.names) and all(
            name in text for name, text in zip(self.names, texts, strict=True)
        )
        return torch.eye(len(self.names))


def plain(*names: str) -> Tensor:
    """Pictures of a colour from edge to edge."""
    return torch.stack(
        [(torch.tensor(COLOURS[name]) / 255).view(3, 1, 1).expand(3, 64, 64) for name in names]
    )


def test_full_marks(tiny_world: World) -> None:
    colours = ("red", "blue", "grey", "teal")
    judge = FakeJudge(tiny_world, {c: p.objects for c, p in zip(colours, PROMPTS, strict=True)})
    figures = figures_of_drawn(plain(*colours), PROMPTS, tiny_world, judge)
    assert [(figure.value, figure.of) for figure in figures] == [(100.0, 3), (100.0, 3), (100.0, 1)]
    assert all(figure.met for figure in figures)


def test_what_is_wrong_counts(tiny_world: World) -> None:
    judge = FakeJudge(
        tiny_world, {"red": ("pea",), "green": ("pea",), "grey": ("cat", "sun"), "teal": ("ball",)}
    )
    name, colour, both = figures_of_drawn(plain("red", "green", "grey", "teal"), PROMPTS, tiny_world, judge)
    assert name.value == 100 * 2 / 3
    assert colour.value == 100 * 2 / 3 and not colour.met
    assert both.value == 0.0 and "MISSED" in str(both)


def test_a_part_that_is_sure_of_nothing_does_not_count(tiny_world: World) -> None:
    names = [thing.name for thing in tiny_world.objects]
    pair = PROMPTS[2]
    shown, other = pair.objects, next(name for name in names if name not in pair.objects)

    class Parts(FakeJudge):
        """Two parts show one thing each; a third resembles all names, one of the others most."""

        def pictures_and_parts(self, images: Tensor) -> Tensor:
            sure = [[0.6 * (name == thing) for name in names] for thing in shown]
            vague = [0.8 + 0.01 * (name == other) for name in names]
            return torch.tensor([*sure, vague]).unsqueeze(1)

    both = figures_of_drawn(plain("grey"), [pair], tiny_world, Parts(tiny_world, {"grey": ()}))[2]
    assert both.value == 100.0 and both.of == 1


def test_a_bar_is_met_when_it_is_reached() -> None:
    assert Figure("x", 60.0, 60.0, "%", 1).met and not Figure("x", 59.9, 60.0, "%", 1).met
    assert Figure("x", 0.0, None, "%", 1).met and "bar" not in str(Figure("x", 0.0, None, "%", 1))


def test_two_things_are_looked_for_in_parts_of_the_picture() -> None:
    class OnePixel(Judge):
        """A judge whose feature of a picture is the colour in its middle."""

        def __init__(self) -> None:
            pass

        def pictures(self, images: Tensor) -> Tensor:
            return images[:, :, images.shape[2] // 2, images.shape[3] // 2]

    pair = torch.zeros(1, 3, 64, 64)
    pair[:, 0, :, :32] = 1  # red on the left, green on the right
    pair[:, 1, :, 32:] = 1
    seen = OnePixel().pictures_and_parts(pair)
    assert seen.shape == (10, 1, 3)
    assert seen[0, 0].tolist() == [0, 1, 0]
    assert seen.amax(0)[0].tolist() == [1, 1, 0]


def test_the_background_is_read_off_composed_pictures(tiny_world: World) -> None:
    from small_base.world.compose import background_colour
    from small_base.world.wording import Background, Placed, Scene

    colours = [name for name in COLOURS if name not in ("red",)]
    scenes = [Scene(Background(colours=(name,)), (Placed(0, 0, 0.5, 0.5, 0.6),)) for name in colours]
    assert background_colour(Composer(tiny_world, 64).render(scenes)) == colours
