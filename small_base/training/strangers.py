"""Pictures of what no word names, told by a word that is made of what is to be seen.

A base that has only seen things by their names knows so many places of its text space, and can be taught
nothing between them. Stable Diffusion has seen so much that a new word finds what it needs. So here a
word of the caption is a projection: of the latents of a thing or a place, or of the figures of a manner
of drawing. What a word says becomes a continuous matter. (Networks that turn a picture into a word, as in
arXiv 2302.12228, learn what this projection does without.)
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..layout import BaseSize
from ..world.compose import Composer
from ..world.placing import SceneSampler
from ..world.transforms import luminance, outlines
from ..world.wording import Background, Placed, Scene, article, caption
from ..world.world import World
from .text_encoder import WIDTH, TextEncoder
from .tokenizer import Tokenizer
from .vae import Vae

# Each is one token, and in no name; what the token table has for it is replaced. The second one is for pairs.
WORDS = ("*", "~")
_PAIRS = 0.4  # share of pictures of strangers that show another thing too
_KNOWN = 0.5  # share of these other things that are called by their names
_AT_ONCE = 64
_SHOWN_ON, _SHOWN_SIZE = Background(colours=("grey",)), 0.75  # where a thing's latents are read off
_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))  # of red, green and blue
_MANNER_FIGURES = 14
_MANNER_CAPTIONS = (
    "{things} in {word} style",
    "a picture of {things} in the style of {word}",
    "{word} style, {things}",
)
_PLACE_CAPTIONS = ("{things} in {word}", "a photo of {things} in {word}", "{things}, {word} background")


@dataclass(frozen=True)
class _Stranger:
    """A picture in the making, its caption, and what each of `WORDS` says in it, (768,)."""

    composer: Composer
    scene: Scene
    caption: str
    words: tuple[Tensor, ...]  # as many as the caption has of them
    manner: Tensor | None = None  # (_MANNER_FIGURES,), 0..1


class Strangers:
    """Draws such pictures and encodes their captions; the same seed gives the same on every machine."""

    def __init__(
        self, whole: World, size: BaseSize, vae: Vae, text: TextEncoder, tokenizer: Tokenizer, seed: int
    ) -> None:
        """`whole` is all of the world; what is held out is left out here, what is not small is used too."""
        self._shares = replace(size.shares, category=0.0, style=0.0)
        self._text, self._tokenizer, self._rng = text, tokenizer, random.Random(seed)
        self._device = text.final_layer_norm.weight.device
        self._ids = [int(tokenizer([word])[0, 1]) for word in WORDS]
        self._known = whole.subset(small=size.name == "s", held_out=False)
        other = whole.subset(small=False, held_out=False)
        self._things = replace(_recoloured(other), scenes=self._known.scenes)
        if not other.scenes:
            raise ValueError("The world has no place that is not held out; build it with some.")
        places = {
            f"{name} {order}": variants[..., order]
            for name, variants in other.scenes.items()
            for order in _ORDERS
        }
        self._places = replace(self._known, scenes=places)
        self._on_things, self._on_known, self._on_places = (
            Composer(world, size.picture, self._device) for world in (self._things, self._known, self._places)
        )
        self._of_things = SceneSampler(
            self._things, size.picture, seed, pairs=0.0, variety=replace(size.variety, mirrored=0.5)
        )
        self._of_pairs = SceneSampler(self._things, size.picture, seed, variety=size.variety)
        self._looks = list(
            zip(self._things.sprite_object.tolist(), self._things.sprite_style.tolist(), strict=True)
        )
        known = {thing.name for thing in self._known.objects}
        self._named_looks = [
            (thing, style)
            for thing, style in self._looks
            if self._things.objects[thing].name in known and self._things.styles[style] in self._known.styles
        ]
        self._of_known = SceneSampler(self._known, size.picture, seed, pairs=0.0, variety=size.variety)

        loud = text.embeddings.token_embedding.weight.norm(dim=1).mean()
        shown = [
            Placed(int(thing), int(style), 0.5, 0.5, _SHOWN_SIZE, 0.0, mirror)
            for thing, style in zip(self._things.sprite_object, self._things.sprite_style, strict=True)
            for mirror in (False, True)
        ]
        self._thing_rows = {
            (one.object_index, one.style_index, one.mirror): row for row, one in enumerate(shown)
        }
        alone = (self._on_things.render([Scene(_SHOWN_ON, (one,)) for one in part]) for part in _parts(shown))
        self._thing_words = _words(vae, alone, seed) * loud
        self._backgrounds = [
            (name, index) for name, variants in places.items() for index in range(len(variants))
        ]
        empty = (self._on_places.empty(name) for name in places)
        self._place_words = _words(vae, empty, seed + 1) * loud
        self._manner_projection = _projection(_MANNER_FIGURES, seed + 2).to(self._device) * loud

    def seed(self, seed: int) -> None:
        """Go on as strangers of this seed would begin."""
        self._rng.seed(seed)

    @torch.no_grad()
    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, size, size), 0..1, and what the text encoder says of them, (B, 77, 768)."""
        drawn = [
            self._rng.choice((self._thing, self._thing, self._place, self._manner))() for _ in range(count)
        ]
        images = torch.cat([one.composer.render([one.scene]) for one in drawn])
        for row, one in enumerate(drawn):
            if one.manner is not None:
                images[row : row + 1] = in_manner(images[row : row + 1], one.manner)
        ids = self._tokenizer([one.caption for one in drawn]).to(self._device)
        embedded = self._text.embeddings(ids)
        at = self._text.embeddings.position_embedding.weight[: ids.shape[1]]
        for number, word in enumerate(self._ids):
            # A caption without the word has nothing to replace, whatever is said.
            vectors = torch.stack([one.words[min(number, len(one.words) - 1)] for one in drawn])
            embedded = torch.where((ids == word)[..., None], vectors[:, None] + at, embedded)
        return images, self._text.from_embedded(embedded)

    def _thing(self) -> _Stranger:
        """Something that the world has, of whatever colours, where the base is used to see things."""
        if len(self._things.objects) > 1 and self._rng.random() < _PAIRS:
            return self._pair()
        (scene,) = self._of_things.sample(1, self._rng)
        return self._told(scene, self._things_in(scene))

    def _pair(self) -> _Stranger:
        """The scene of a stranger with another thing in it: one that has a name, or a second stranger."""
        one = self._rng.choice(self._looks)
        named = [thing for thing in self._named_looks if thing[0] != one[0]]
        by_name = bool(named) and self._rng.random() < _KNOWN
        offered = named if by_name else [thing for thing in self._looks if thing[0] != one[0]]
        scene = self._of_pairs.place([one, self._rng.choice(offered)], self._rng)
        return self._told(scene, self._things_in(scene)[: 1 if by_name else 2])

    def _things_in(self, scene: Scene) -> list[str]:
        return [self._things.objects[one.object_index].name for one in scene.placed]

    def _told(self, scene: Scene, strangers: Sequence[str]) -> _Stranger:
        """With words in the places of these things' names, which come first in the scene."""
        words = dict(zip(strangers, WORDS, strict=False))
        text = caption(scene, self._things, self._rng, name_words=words, shares=self._shares)
        rows = [
            self._thing_rows[one.object_index, one.style_index, one.mirror]
            for one in scene.placed[: len(strangers)]
        ]
        return _Stranger(self._on_things, scene, text, tuple(self._thing_words[row] for row in rows))

    def _place(self) -> _Stranger:
        """Something known in front of a place of whatever colours."""
        (scene,) = self._of_known.sample(1, self._rng)
        row = self._rng.randrange(len(self._backgrounds))
        name, variant = self._backgrounds[row]
        scene = Scene(Background(scene=name, variant=variant), scene.placed)
        text = self._rng.choice(_PLACE_CAPTIONS).format(things=self._name(scene), word=WORDS[0])
        return _Stranger(self._on_places, scene, text, (self._place_words[row],))

    def _manner(self) -> _Stranger:
        """Something known, all of the picture redrawn."""
        (scene,) = self._of_known.sample(1, self._rng)
        text = self._rng.choice(_MANNER_CAPTIONS).format(things=self._name(scene), word=WORDS[0])
        manner = torch.tensor([self._rng.random() for _ in range(_MANNER_FIGURES)], device=self._device)
        spread = (manner - 0.5) * 12**0.5
        return _Stranger(self._on_known, scene, text, (spread @ self._manner_projection,), manner)

    def _name(self, scene: Scene) -> str:
        return article(self._known.objects[scene.placed[0].object_index].name)


def in_manner(pictures: Tensor, figures: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in three tones from dark to light and an ink along outlines.

    figures: (14,), 0..1: the four colours, how strong the ink is, how much of the picture stays.
    """
    dark, middle, light, ink = figures[:12].view(4, 1, 3, 1, 1)
    level = 2 * luminance(pictures)
    toned = torch.lerp(torch.lerp(dark, middle, level.clamp(max=1)), light, (level - 1).clamp(min=0))
    inked = torch.lerp(toned, ink.expand_as(toned), outlines(pictures) * figures[12])
    return torch.lerp(inked, pictures, figures[13] ** 2)


def _recoloured(world: World) -> World:
    """Every sprite as it is, and once more with its red, green and blue in another order."""
    orders = [_ORDERS[1 + row % (len(_ORDERS) - 1)] for row in range(len(world.sprites))]
    others = np.stack([sprite[..., (*order, 3)] for sprite, order in zip(world.sprites, orders, strict=True)])
    styles = len(world.styles)
    return replace(
        world,
        styles=(*world.styles, *(f"{style} recoloured" for style in world.styles)),
        sprites=np.concatenate([world.sprites, others]),
        sprite_object=np.concatenate([world.sprite_object] * 2),
        sprite_style=np.concatenate([world.sprite_style, world.sprite_style + styles]),
    )


def _parts(shown: Sequence[Placed]) -> Iterator[Sequence[Placed]]:
    return (shown[start : start + _AT_ONCE] for start in range(0, len(shown), _AT_ONCE))


@torch.no_grad()
def _words(vae: Vae, pictures: Iterable[Tensor], seed: int) -> Tensor:
    """Words that say what is on pictures, so far as 8 x 8 latents show it: (n, 768), about 1 long."""
    latents = torch.cat([F.adaptive_avg_pool2d(vae.encode(part), 8).flatten(1) for part in pictures])
    spread = (latents - latents.mean(0)) / latents.std(0).clamp(min=1e-3)
    return spread.clamp(-4, 4) @ _projection(spread.shape[1], seed).to(spread.device)


def _projection(figures: int, seed: int) -> Tensor:
    """(figures, 768): turns standardised figures into a vector about 1 long, and loses nothing of them."""
    random_rows = torch.randn(WIDTH, figures, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(random_rows).Q.mT / figures**0.5
