"""Scenes as records, and what a caption says of one, in many wordings."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .world import World

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Placed:
    """One sprite's place in a picture. Lengths are shares of the picture's side, y points down."""

    object_index: int  # into World.objects
    style_index: int  # into World.styles
    x: float  # centre, 0 is left
    y: float  # centre, 0 is top
    size: float  # side of the sprite's frame, which its longer side nearly fills
    tilt: float = 0.0  # degrees, clockwise
    mirror: bool = False  # left and right swapped, before it is tilted


@dataclass(frozen=True)
class Background:
    """A plain colour, a gradient between two, or one variant of a place."""

    colours: tuple[str, ...] = ()  # names in the palette: one is plain, two are a gradient
    shades: tuple[Colour, ...] = ()  # added to each of the colours, 0..255; none is no shade
    direction: tuple[int, int] = (0, 1)  # from a gradient's first colour to its second: x, y
    scene: str | None = None  # a name in World.scenes
    variant: int = 0
    mirror: bool = False  # of a place

    def __post_init__(self) -> None:
        if (self.scene is None) != (len(self.colours) in (1, 2)) or (self.scene and self.colours):
            raise ValueError(
                f"A background is one colour, two, or a scene; this has {self.colours} and {self.scene!r}."
            )
        if self.shades and len(self.shades) != len(self.colours):
            raise ValueError(f"{len(self.shades)} shades for {len(self.colours)} colours; give one for each.")


@dataclass(frozen=True)
class Scene:
    """What one picture shows. Later things are drawn over earlier ones."""

    background: Background
    placed: tuple[Placed, ...]  # one or two

    def __post_init__(self) -> None:
        if len(self.placed) not in (1, 2):
            raise ValueError(f"A scene has one thing or two; this has {len(self.placed)}.")


@dataclass(frozen=True)
class Shares:
    """How often a caption says each of these, 0..1."""

    style: float = 0.6
    background: float = 0.85
    category: float = 0.15  # in the place of a name
    size: float = 0.25  # of the things small or large enough to be called so
    relation: float = 0.7  # of the pairs that have one; the others are "a and b"
    backwards: float = 0.5  # of the pairs: what is on the right or below is named first
    filler: float = 0.04


FULL_WORDING = Shares()

FILLERS = (
    "masterpiece",
    "best quality",
    "high quality",
    "highly detailed",
    "4k",
    "sharp focus",
    "digital art",
    "clean",
    "simple",
    "cute",
    "beautiful",
    "trending",
)

# {things} is what follows; an empty lead stands thrice, so that short captions are common.
LEADS = (
    "{things}",
    "{things}",
    "{things}",
    "a photo of {things}",
    "a photo of {things}",
    "a picture of {things}",
    "picture of {things}",
    "an image of {things}",
    "a drawing of {things}",
    "an illustration of {things}",
    "an emoji of {things}",
)
STYLE_LEADS = (
    "{a_style} style picture of {things}",
    "{a_style} style drawing of {things}",
    "{a_style} style emoji of {things}",
    "{style} style, {things}",
    "{style} style image of {things}",
)
STYLE_TAILS = (" in {style} style", ", {style} style", " in the style of {style}", ", in {style} style")

PLAIN_PLACES = (
    " on {a_colour} background",
    " on a plain {colour} background",
    " in front of {a_colour} background",
    " against a plain {colour} background",
    " on {colour}",
    ", {colour} background",
    ", plain {colour} background",
)
GRADIENT_PLACES = (
    " on {a_colour} and {other} gradient",
    " on a gradient from {colour} to {other}",
    " on {a_colour} to {other} background",
    ", {colour} and {other} background",
    ", {colour} to {other} gradient background",
)
SCENE_PLACES = (" {where}", " {where}", " {where}", ", {where}", ", {scene} background")

RELATIONS: dict[str, tuple[str, ...]] = {
    "left of": ("{a} left of {b}", "{a} to the left of {b}", "{a} on the left and {b} on the right"),
    "right of": ("{a} right of {b}", "{a} to the right of {b}", "{a} on the right and {b} on the left"),
    "above": ("{a} above {b}", "{a} above {b}", "{a} at the top and {b} at the bottom"),
    "below": ("{a} below {b}", "{a} below {b}", "{a} at the bottom and {b} at the top"),
}
OPPOSITES = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
UNORDERED = ("{a} and {b}", "{a} and {b}", "{a} with {b}", "two things: {a} and {b}", "{a}, {b}")
BESIDE = ("{a} next to {b}", "{a} beside {b}")

_WHERE = {
    "beach": "on a beach",
    "meadow": "in a meadow",
    "night": "at night",
    "snow": "in the snow",
    "street": "on a street",
    "room": "in a room",
    "desert": "in a desert",
    "forest": "in a forest",
    "space": "in space",
    "coral reef": "at a coral reef",
    "volcano": "at a volcano",
}
# Places one is at rather than in.
_AT = frozenset(("sea", "seaside", "lake", "river", "harbour", "airport", "station", "market", "fair"))

_AFTER_NOUN = re.compile(r" (?:of|on|in|with|at|for|to|over) ")

_SMALL_ALONE, _LARGE_ALONE = 0.57, 0.78
_MUCH_LARGER = 1.3

_AN_THOUGH_CONSONANT = ("hour", "honest", "heir", "x-ray", "suv")
_A_THOUGH_VOWEL = ("uni", "use", "usb", "uk", "uf", "utensil", "eu", "ewe", "one", "ouija")
_SINGULAR_S = ("ss", "us", "is", "gas", "lens", "canvas", "atlas", "rhinoceros")
# Materials, games and the like: one doesn't say "a" of them.
_MASS = frozenset(
    (
        "food",
        "bread",
        "rice",
        "butter",
        "cheese",
        "salt",
        "honey",
        "ice",
        "meat",
        "bacon",
        "sushi",
        "milk",
        "tea",
        "spaghetti",
        "broccoli",
        "garlic",
        "ginger",
        "corn",
        "popcorn",
        "snow",
        "fire",
        "fog",
        "clothing",
        "furniture",
        "luggage",
        "wood",
        "yarn",
        "thread",
        "dna",
        "soap",
        "paper",
        "bowling",
        "lacrosse",
        "badminton",
        "skis",
    )
)


def article(words: str) -> str:
    """`words` with "a", "an", or for plurals and materials "some" in front."""
    noun = _AFTER_NOUN.split(words)[0].split()[-1]  # "ear of corn" is an ear
    if noun in _MASS or (noun.endswith("s") and not noun.endswith(_SINGULAR_S)):
        return f"some {words}"
    return f"{a_or_an(words)} {words}"


def a_or_an(words: str) -> str:
    """The article that goes with how `words` begin."""
    words = words.lower()
    if words.startswith(_AN_THOUGH_CONSONANT):
        return "an"
    return "an" if words.startswith(tuple("aeiou")) and not words.startswith(_A_THOUGH_VOWEL) else "a"


def where(scene: str) -> str:
    """A place as it follows a thing: "on a beach"."""
    if scene in _WHERE:
        return _WHERE[scene]
    return f"at the {scene}" if scene in _AT else f"in {article(scene)}"


def relation(first: Placed, second: Placed) -> str | None:
    """Where `first` is, seen from `second`: a key of `RELATIONS`, or None if neither direction stands out."""
    across, down = first.x - second.x, first.y - second.y
    if max(abs(across), abs(down)) < 0.15:
        return None
    if abs(across) >= 1.5 * abs(down):
        return "left of" if across < 0 else "right of"
    if abs(down) >= 1.5 * abs(across):
        return "above" if down < 0 else "below"
    return None


def _in_reading_order(one: Placed, other: Placed) -> list[Placed]:
    across, down = other.x - one.x, other.y - one.y
    return [one, other] if (across if abs(across) >= abs(down) else down) >= 0 else [other, one]


def caption(
    scene: Scene,
    world: World,
    rng: random.Random,
    *,
    name_words: Mapping[str, str] | None = None,
    shares: Shares = FULL_WORDING,
    fillers: Sequence[str] = FILLERS,
) -> str:
    """One caption of a scene, true to it, in a wording drawn by `rng`.

    Args:
        scene: what the picture shows; its indices are those of `world`.
        name_words: an object's name -> what to say in its place, for instance {"cat": "zwx cat"}; such an
            object is never called by its category.
        shares: how often style, background and the rest are said.
        fillers: words of which one to three are sometimes put at the end.
    """
    placed = list(scene.placed)
    if len(placed) == 2:
        placed = _in_reading_order(*placed)
        if rng.random() < shares.backwards:
            placed.reverse()
    nouns = [_noun(one, world, rng, name_words or {}, shares) for one in placed]
    sizes = [word if rng.random() < shares.size else "" for word in _sizes(placed)]
    styles = [world.styles[one.style_index] for one in placed]
    names_style = rng.random() < shares.style
    # Where two styles meet, each goes with its thing; else it may lead or end the caption instead.
    manner = "each" if len(set(styles)) > 1 else rng.choice(("each", "each", "lead", "tail"))
    with_articles = rng.random() < 0.7

    things = []
    for index, (noun, size, style) in enumerate(zip(nouns, sizes, styles, strict=True)):
        spoken = f"{style} style" if names_style and manner == "each" else ""
        words = " ".join(word for word in (size, spoken, noun) if word)
        again = index == 1 and noun == nouns[0]
        if again:
            things.append(f"another {words}")
        else:
            things.append(article(words) if with_articles else words)

    leads = STYLE_LEADS if names_style and manner == "lead" else LEADS
    lead = rng.choice(leads)
    tail = rng.choice(STYLE_TAILS) if names_style and manner == "tail" else ""
    text = lead.format(
        things=_arranged(things, placed, rng, shares),
        style=styles[0],
        a_style=f"{a_or_an(styles[0])} {styles[0]}",
    )
    parts = [
        tail.format(style=styles[0]),
        _place(scene.background, rng) if rng.random() < shares.background else "",
    ]
    # A comma ends what can be said of the thing itself, so what has one goes last.
    parts.sort(key=lambda part: part.startswith(","))
    text += "".join(parts)
    if fillers and rng.random() < shares.filler:
        text += ", " + ", ".join(rng.sample(fillers, min(len(fillers), rng.randint(1, 3))))
    return text


def _noun(
    placed: Placed, world: World, rng: random.Random, name_words: Mapping[str, str], shares: Shares
) -> str:
    thing = world.objects[placed.object_index]
    by_category = rng.random() < shares.category
    if thing.name in name_words:
        return name_words[thing.name]
    return thing.category if by_category else thing.name


def _sizes(placed: Sequence[Placed]) -> list[str]:
    """For each thing "small", "large" or nothing: pairs are compared with each other."""
    if len(placed) == 1:
        size = placed[0].size
        return ["small" if size < _SMALL_ALONE else "large" if size > _LARGE_ALONE else ""]
    ratio = placed[0].size / placed[1].size
    if ratio > _MUCH_LARGER:
        return ["large", "small"]
    return ["small", "large"] if ratio < 1 / _MUCH_LARGER else ["", ""]


def _arranged(things: Sequence[str], placed: Sequence[Placed], rng: random.Random, shares: Shares) -> str:
    if len(things) == 1:
        return things[0]
    found = relation(placed[0], placed[1])
    if found and rng.random() < shares.relation:
        wordings = RELATIONS[found]
    else:
        wordings = UNORDERED if found in ("above", "below") else UNORDERED + BESIDE
    return rng.choice(wordings).format(a=things[0], b=things[1])


def _place(background: Background, rng: random.Random) -> str:
    if background.scene is not None:
        return rng.choice(SCENE_PLACES).format(where=where(background.scene), scene=background.scene)
    first, last = background.colours[0], background.colours[-1]
    places = PLAIN_PLACES if len(background.colours) == 1 else GRADIENT_PLACES
    return rng.choice(places).format(colour=first, other=last, a_colour=f"{a_or_an(first)} {first}")
