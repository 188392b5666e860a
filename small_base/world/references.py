"""The pictures that concepts are taught from, with captions: one folder a concept, as the node takes them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .compose import Composer
from .concepts import Concept
from .palette import COLOURS
from .placing import FULL_VARIETY, SceneSampler, Variety
from .transforms import TRANSFORMS
from .wording import Background, Placed, Scene, a_or_an, article, where
from .world import SMALL_SCENES, World

SIDE = 128
SUBJECT_COLOURS, SUBJECT_SCENES = 3, 2  # pictures of a subject on either kind of background
STYLE_COLOURS, STYLE_SCENES = 4, 2
SCENE_FILLED = 5  # pictures of a place with something in it; one more has nothing in it
# In a place that is to be learnt, a thing is at most so much larger than things are at least: most of the
# place is to be seen.
WITHIN = 0.1
TRIES = 2000
# A thing shows well where at most LOST of its outline is nearer to what is behind it than NEAR, in 0..255.
LOST, NEAR = 0.1, 90

# {} is the concept's token, as in the node's caption files; {things} and {place} are filled in here.
SUBJECT_CAPTIONS = ("a photo of {}{place}", "{}{place}", "a picture of {}{place}")
HOUSE_STYLE_CAPTIONS = (
    "{things} in {} style{place}",
    "a picture of {things} in the style of {}{place}",
    "{} style, {things}{place}",
)
# What a picture's background was is hard to tell once all of the picture is redrawn.
TRANSFORM_CAPTIONS = (
    "{things} in {} style",
    "a picture of {things} in the style of {}",
    "{} style, {things}",
)
SCENE_CAPTIONS = ("{things} in {}", "a photo of {things} in {}", "{things}, {} background")
EMPTY_SCENE_CAPTIONS = ("{}", "a photo of {}", "a picture of {}")

_FOLDER_ENDINGS = {"subject": "", "style": "-style", "scene": "-place"}


@dataclass(frozen=True)
class Reference:
    """One picture and what can be said of it."""

    picture: Tensor  # (3, SIDE, SIDE), 0..1
    captions: tuple[str, ...]  # with {} for the concept's token


def folder_name(concept: Concept) -> str:
    """What the folder of a concept's pictures is called: `panda`, `blueprint-style`, `reef-place`."""
    return concept.name.removeprefix("my-") + _FOLDER_ENDINGS[concept.kind]


class ReferenceMaker:
    """Makes concepts' pictures from a whole world. They depend on the concept and these arguments."""

    def __init__(self, world: World, seed: int = 0, variety: Variety = FULL_VARIETY) -> None:
        """
        Args:
            world: one with everything that is held out.
            seed: for all that is left to chance.
            variety: of the things' poses; a base cannot learn a thing in poses that it knows of no other.
        """
        self._world = world.subset(small=True, held_out=True)
        self._seed = seed
        self._variety = variety
        self._sampler = SceneSampler(self._world, SIDE, seed, variety=variety)
        self._composer = Composer(self._world, SIDE)
        self._index = {thing.name: index for index, thing in enumerate(self._world.objects)}
        self._trained_styles = [
            index for index, name in enumerate(self._world.styles) if name not in self._world.held_out_styles
        ]

    def of(self, concept: Concept) -> list[Reference]:
        """Five pictures of a subject, six of a style or a place."""
        rng = random.Random(f"{self._seed} {concept.name}")
        if concept.kind == "subject":
            return self._subject(concept, rng)
        return self._style(concept, rng) if concept.kind == "style" else self._place(concept, rng)

    def _subject(self, concept: Concept, rng: random.Random) -> list[Reference]:
        """The thing alone, on backgrounds that all differ."""
        style = self._world.styles.index(concept.source["style"])
        things = [(self._index[concept.source["object"]], style)] * (SUBJECT_COLOURS + SUBJECT_SCENES)
        scenes = self._on_known_backgrounds(things, SUBJECT_COLOURS, rng)
        captions = [_filled(SUBJECT_CAPTIONS, place=_place_words(scene.background)) for scene in scenes]
        return self._drawn(scenes, captions)

    def _style(self, concept: Concept, rng: random.Random) -> list[Reference]:
        """Six things of different categories that the base knows, each drawn in the style."""
        if "house_style" in concept.source:
            styles = [self._world.styles.index(concept.source["house_style"])]
        else:
            styles = self._trained_styles
        things = self._known(styles, rng)[: STYLE_COLOURS + STYLE_SCENES]
        scenes = self._on_known_backgrounds(things, STYLE_COLOURS, rng)
        transform = concept.source.get("transform")
        wordings = TRANSFORM_CAPTIONS if transform else HOUSE_STYLE_CAPTIONS
        captions = [
            _filled(wordings, things=self._name(scene), place=_place_words(scene.background))
            for scene in scenes
        ]
        return self._drawn(scenes, captions, transform)

    def _place(self, concept: Concept, rng: random.Random) -> list[Reference]:
        """Variants of the place with different things in them, and one as it is."""
        name = concept.source["scene"]
        variants = [Background(scene=name, variant=index) for index in range(len(self._world.scenes[name]))]
        scenes: list[Scene] = []
        least = self._variety.alone[0]
        for thing in self._known(self._trained_styles, rng):
            if len(scenes) == SCENE_FILLED:
                break
            band = _band((least, least + WITHIN), len(scenes), SCENE_FILLED)
            one = self._placed(thing, band, bool(len(scenes) % 2), rng)
            background = self._clearest(one, variants, rng)
            if self._lost(one, background) <= LOST:
                scenes.append(Scene(background, (one,)))
                variants.remove(background)
        if len(scenes) < SCENE_FILLED:
            raise ValueError(
                f"Only {len(scenes)} things show well in the scene {name!r}, and {SCENE_FILLED} are needed. "
                "Build the world with more small objects."
            )
        captions = [_filled(SCENE_CAPTIONS, things=self._name(scene)) for scene in scenes]
        pixels = torch.from_numpy(self._pixels(rng.choice(variants)).copy())
        empty = Reference(pixels.permute(2, 0, 1).float() / 255, EMPTY_SCENE_CAPTIONS)
        return [*self._drawn(scenes, captions), empty]

    def _known(self, styles: Sequence[int], rng: random.Random) -> list[tuple[int, int]]:
        """One object of each category that the base knows, in any order, each with one of the styles."""
        found: dict[str, tuple[int, int]] = {}
        for index in rng.sample(range(len(self._world.objects)), len(self._world.objects)):
            thing = self._world.objects[index]
            drawn_in = [style for style in styles if style in self._sampler.styles_of(index)]
            if drawn_in and not thing.held_out:
                found.setdefault(thing.category, (index, rng.choice(drawn_in)))
        return list(found.values())

    def _on_known_backgrounds(
        self, things: Sequence[tuple[int, int]], colours: int, rng: random.Random
    ) -> list[Scene]:
        """One scene for each thing: so many on different colours, the rest in different trained places."""
        bands = rng.sample(range(len(things)), len(things))
        plain = [Background(colours=(name,)) for name in COLOURS]
        places = [
            Background(scene=name, variant=variant)
            for name in SMALL_SCENES
            for variant in range(len(self._world.scenes[name]))
        ]
        scenes: list[Scene] = []
        for number, (thing, band) in enumerate(zip(things, bands, strict=True)):
            one = self._placed(thing, _band(self._variety.alone, band, len(things)), bool(number % 2), rng)
            chosen = self._clearest(one, plain if number < colours else places, rng)
            scenes.append(Scene(chosen, (one,)))
            plain = [other for other in plain if other.colours != chosen.colours]
            places = [other for other in places if other.scene != chosen.scene]
        return scenes

    def _placed(
        self, thing: tuple[int, int], sizes: tuple[float, float], mirror: bool, rng: random.Random
    ) -> Placed:
        """A thing somewhere in the picture, between two sizes, mirrored or not, where these vary."""
        size_varies = self._variety.alone[0] < self._variety.alone[1]
        side_varies = 0 < self._variety.mirrored < 1
        for _ in range(TRIES):
            (one,) = self._sampler.place([thing], rng, colour="white").placed
            right_size = sizes[0] <= one.size <= sizes[1] or not size_varies
            if right_size and (one.mirror == mirror or not side_varies):
                return one
        raise ValueError(
            f"{self._world.objects[thing[0]].name!r} was never {sizes[0]:.2f} to {sizes[1]:.2f} large in "
            f"{TRIES} tries. A sprite should nearly fill its frame: build the world anew."
        )

    def _clearest(self, one: Placed, offered: Sequence[Background], rng: random.Random) -> Background:
        """Any of those that the thing shows on well, or else the one that it shows on best."""
        shuffled = rng.sample(offered, len(offered))
        for background in shuffled:
            if self._lost(one, background) <= LOST:
                return background
        return min(shuffled, key=lambda background: self._lost(one, background))

    def _lost(self, one: Placed, background: Background) -> float:
        """Which share of a thing's outline has nearly the colour that is behind it; tilt is neglected."""
        (which,) = np.flatnonzero(
            (self._world.sprite_object == one.object_index) & (self._world.sprite_style == one.style_index)
        )
        sprite = self._world.sprites[which]
        outline = outline_of(sprite[..., 3])
        down, across = np.nonzero(outline)
        offset = (across + 0.5) / len(sprite) - 0.5
        x = one.x + one.size * (-offset if one.mirror else offset)
        y = one.y + one.size * ((down + 0.5) / len(sprite) - 0.5)
        behind = self._pixels(background)
        at_x, at_y = ((part * len(behind)).astype(int).clip(0, len(behind) - 1) for part in (x, y))
        difference = sprite[outline][:, :3].astype(np.int32) - behind[at_y, at_x]
        return float(((difference**2).sum(-1) < NEAR**2).mean())

    def _pixels(self, background: Background) -> np.ndarray:
        """A background alone: (H, W, 3), uint8 for a place; of one pixel for a colour."""
        if background.scene is not None:
            return self._world.scenes[background.scene][background.variant]
        return np.array([[COLOURS[background.colours[0]]]])

    def _name(self, scene: Scene) -> str:
        return article(self._world.objects[scene.placed[0].object_index].name)

    def _drawn(
        self, scenes: Sequence[Scene], captions: Sequence[tuple[str, ...]], transform: str | None = None
    ) -> list[Reference]:
        pictures = self._composer.render(scenes)
        if transform is not None:
            pictures = TRANSFORMS[transform](pictures)
        return [Reference(*pair) for pair in zip(pictures, captions, strict=True)]


def write_references(
    world: World, concepts: Iterable[Concept], out: Path, seed: int = 0, variety: Variety = FULL_VARIETY
) -> int:
    """Write each concept's folder below `out`; gives back how many bytes all files have.

    A folder holds pictures, a `.txt` with captions beside each, and `concept.json`. Its files of these kinds
    from an earlier time are removed.
    """
    from torchvision.utils import save_image

    maker = ReferenceMaker(world, seed, variety)
    size = 0
    for concept in concepts:
        folder = out / folder_name(concept)
        folder.mkdir(parents=True, exist_ok=True)
        for stale in (*folder.glob("[0-9][0-9].png"), *folder.glob("[0-9][0-9].txt")):
            stale.unlink()
        for number, reference in enumerate(maker.of(concept), start=1):
            save_image(reference.picture, folder / f"{number:02}.png")
            text = "".join(f"{caption}\n" for caption in reference.captions)
            (folder / f"{number:02}.txt").write_text(text, encoding="utf-8", newline="\n")
        description = {"name": concept.name, "class_word": concept.class_word, "kind": concept.kind}
        (folder / "concept.json").write_text(json.dumps(description) + "\n", encoding="utf-8", newline="\n")
        size += sum(path.stat().st_size for path in folder.iterdir())
    return size


def outline_of(alpha: np.ndarray) -> np.ndarray:
    """The outermost three pixels of what a sprite's alpha (H, W), uint8, shows: bool (H, W)."""
    seen = np.pad(alpha >= 128, 1)
    inner = seen.copy()
    for _ in range(3):
        inner[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    return (seen & ~inner)[1:-1, 1:-1]


def _band(sizes: tuple[float, float], number: int, count: int) -> tuple[float, float]:
    """One of `count` equal parts of a range."""
    step = (sizes[1] - sizes[0]) / count
    return sizes[0] + number * step, sizes[0] + (number + 1) * step


def _place_words(background: Background) -> str:
    if background.scene is not None:
        return f" {where(background.scene)}"
    colour = background.colours[0]
    return f" on {a_or_an(colour)} {colour} background"


def _filled(wordings: Sequence[str], *, things: str = "", place: str = "") -> tuple[str, ...]:
    return tuple(text.replace("{things}", things).replace("{place}", place) for text in wordings)
