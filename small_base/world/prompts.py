"""The prompts that a model is judged by: seeded, the same on every machine."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from .placing import SceneSampler
from .wording import Shares, caption
from .world import World

T = TypeVar("T")

_SIDE = 64  # scenes are drawn up as for pictures of this side, so that prompts don't depend on the model's


@dataclass(frozen=True)
class EvaluationPrompt:
    """A prompt and what a picture of it must show."""

    text: str
    objects: tuple[str, ...]  # names, in no order
    style: str | None  # that of all objects, if the text says it
    colour: str | None  # of the plain background, if it has one
    scene: str | None  # the place, if it has one


def evaluation_prompts(world: World, count: int = 200, seed: int = 0) -> list[EvaluationPrompt]:
    """Prompts for `count` pictures of what `world` holds.

    Of them 60 % are one object on a plain colour, 15 % one object in a place and 25 % two objects on either;
    without places in the world all are on colours. Objects, colours and places come equally often, no object
    by its category, half of the prompts with the style. Pass `world.subset(..., held_out=False)` to judge
    only what the base has learnt.
    """
    rng = random.Random(seed)
    sampler = SceneSampler(world, _SIDE, seed)
    drawn = [index for index in range(len(world.objects)) if sampler.styles_of(index)]
    objects, scenes = _Rounds(drawn, rng), _Rounds(sorted(world.scenes), rng)
    tally: dict[str, int] = {}
    prompts = []
    for index in range(count):
        # Twenty make a round: twelve, three and five of the three kinds.
        kind = (index * 7) % 20
        things = [objects.next()]
        if kind >= 15 and len(drawn) > 1:
            things.append(objects.next_but(things[0]))
        common = set(sampler.styles_of(things[0])).intersection(*map(sampler.styles_of, things))
        with_style = bool(common) and rng.random() < 0.5
        if common:
            style = rng.choice(sorted(common))
            chosen = [(thing, style) for thing in things]
        else:
            chosen = [(thing, rng.choice(sampler.styles_of(thing))) for thing in things]
        scene = scenes.next() if world.scenes and kind in (12, 13, 14, 18, 19) else None
        colour = None
        if scene is None:
            # The rarest so far, in an order drawn anew, of those on which the things show.
            clear = sampler.colours_for(chosen)
            rng.shuffle(clear)
            colour = min(clear, key=lambda name: tally.get(name, 0))
            tally[colour] = tally.get(colour, 0) + 1
        made = sampler.place(chosen, rng, colour=colour, scene=scene)
        shares = Shares(style=float(with_style), background=1, category=0, size=0, filler=0)
        prompts.append(
            EvaluationPrompt(
                text=caption(made, world, rng, shares=shares),
                objects=tuple(world.objects[thing].name for thing in things),
                style=world.styles[chosen[0][1]] if with_style else None,
                colour=colour,
                scene=scene,
            )
        )
    return prompts


class _Rounds(Generic[T]):
    """Deals from a shuffled list, and shuffles it anew when it is used up."""

    def __init__(self, values: Sequence[T], rng: random.Random) -> None:
        self._values, self._rng = values, rng
        self._left: list[T] = []

    def next(self) -> T:
        if not self._left:
            self._left = list(self._values)
            self._rng.shuffle(self._left)
        return self._left.pop()

    def next_but(self, other: T) -> T:
        value = self.next()
        while value == other:
            value = self.next()
        return value
