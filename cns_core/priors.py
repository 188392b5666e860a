"""Priors: what keeps the class as it was while one concept of it is learned.

A prior is a class here and a line in `PRIORS`. Each adds noised latents, their target and their text to every
batch, at the noise levels of the concept's own pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .framing import Framings
from .schedule import NoiseLevels
from .text_features import TextFeatures

Size = tuple[int, int]


class KeptPool(NamedTuple):
    """Pictures of one size of what is to stay as it is: latents `(n, C, h, w)`, what each was cut from, and
    what it is described by.
    """

    latents: Tensor
    framings: Framings
    prompts: Sequence[str]


KeptPools = Mapping[Size, KeptPool]  # by latent size `(h, w)`


class PriorBatch(NamedTuple):
    """The prior's half of a batch: noised latents `(B, C, h, w)`, what should be predicted, the text, and
    what each row's picture was cut from.
    """

    z_t: Tensor
    target: Tensor
    text: TextFeatures
    framings: Framings


@dataclass(frozen=True, eq=False)
class NoisedBatch:
    """The concept's own half: scaled latents z0 `(B, C, h, w)`, noise, noise levels t `(B,)`, noised latents.

    class_captions: the captions with the class word in the token's place; framings: what each picture was cut
    from.
    """

    captions: Sequence[str]
    class_captions: Sequence[str]
    z0: Tensor
    noise: Tensor
    t: Tensor
    z_t: Tensor
    framings: Framings


class PictureSource(Protocol):
    """Where pictures of what is kept come from, as latents by size; may take long, and may raise to stop."""

    def given(self) -> KeptPools:
        """Class images that the user connected, fitted to every size."""
        ...

    def drawn(self) -> KeptPools:
        """Class images drawn by the untouched model; some for every size."""
        ...

    def replayed(self) -> KeptPools:
        """The class and every earlier concept, drawn as the memory has them; some for every size."""
        ...


class Teacher(Protocol):
    """What a prior may ask of the training loop."""

    @property
    def levels(self) -> NoiseLevels:
        """The model's."""
        ...

    @property
    def kept(self) -> KeptPools:
        """What `Prior.prepare` has given."""
        ...

    def frozen_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Prompts without the token, encoded."""
        ...

    def untrained_prediction(self, z_t: Tensor, t: Tensor, text: TextFeatures, framings: Framings) -> Tensor:
        """What the model predicts with nothing learned, without a gradient."""
        ...

    def earlier_prediction(self, z_t: Tensor, t: Tensor, text: TextFeatures, framings: Framings) -> Tensor:
        """What it predicts as earlier concepts left it, without a gradient."""
        ...

    def pick(self, below: int) -> int:
        """A random whole number from the run's generator."""
        ...


class Prior(Protocol):
    """One way to keep the class."""

    name: str  # as users choose it
    loss: str  # the name under which its loss is recorded
    asks_before: bool  # whether it asks for `Teacher.earlier_prediction`

    def check(self, given: Sequence[Tensor]) -> None:
        """ValueError, before any work, when the connected class images are missing or of no use."""
        ...

    def prepare(self, pictures: PictureSource) -> KeptPools:
        """The pictures it needs; empty for none."""
        ...

    def check_latents(self, latents: KeptPools, sizes: Iterable[Size]) -> None:
        """ValueError when a latent size of the concept has no pictures of what is kept, where they are
        needed.
        """
        ...

    def batch(self, batch: NoisedBatch, teacher: Teacher) -> PriorBatch | None:
        """The prior's half of a batch."""
        ...


class NoPrior:
    """Nothing keeps the class."""

    name = "none"
    loss = ""
    asks_before = False

    def check(self, given: Sequence[Tensor]) -> None:
        if given:
            raise ValueError(
                f"Class images are connected, but the prior is {self.name!r}. Choose 'given class images' or "
                "unplug them."
            )

    def prepare(self, pictures: PictureSource) -> KeptPools:
        return {}

    def check_latents(self, latents: KeptPools, sizes: Iterable[Size]) -> None:
        pass

    def batch(self, batch: NoisedBatch, teacher: Teacher) -> PriorBatch | None:
        return None


class ImageFree(NoPrior):
    """The untouched model's own prediction for the class caption, on the same noised latents."""

    name = "image-free"
    loss = "prior"

    def batch(self, batch: NoisedBatch, teacher: Teacher) -> PriorBatch:
        text = teacher.frozen_text(batch.class_captions)
        target = teacher.untrained_prediction(batch.z_t, batch.t, text, batch.framings)
        return PriorBatch(batch.z_t, target, text, batch.framings)


class DrawnClassImages(NoPrior):
    """DreamBooth's prior preservation (2208.12242): pictures of the class, drawn by the base model."""

    name = "drawn class images"
    loss = "prior"

    def prepare(self, pictures: PictureSource) -> KeptPools:
        return pictures.drawn()

    def check_latents(self, latents: KeptPools, sizes: Iterable[Size]) -> None:
        missing = sorted(set(sizes) - set(latents))
        if missing:
            raise ValueError(
                f"The prior needs class images of latent sizes {missing}; give some for each size."
            )

    def batch(self, batch: NoisedBatch, teacher: Teacher) -> PriorBatch:
        z_class, text, framings = _picked(batch, teacher)
        levels = teacher.levels
        z_t = levels.add_noise(z_class, batch.noise, batch.t)
        return PriorBatch(z_t, levels.target(z_class, batch.noise, batch.t), text, framings)


class GivenClassImages(DrawnClassImages):
    """Prior preservation with the user's own pictures of the class."""

    name = "given class images"

    def check(self, given: Sequence[Tensor]) -> None:
        if not given:
            raise ValueError(
                "The prior is 'given class images', but none are connected. Connect an IMAGE batch or choose "
                "another prior."
            )

    def prepare(self, pictures: PictureSource) -> KeptPools:
        return pictures.given()


class Replay(DrawnClassImages):
    """Pictures of the class and of every earlier concept, drawn by the model as the memory has it, and what
    that model predicts for them: replay with distillation, as in L2DM (2309.04430).
    """

    name = "replay"
    asks_before = True

    def prepare(self, pictures: PictureSource) -> KeptPools:
        return pictures.replayed()

    def batch(self, batch: NoisedBatch, teacher: Teacher) -> PriorBatch:
        z_kept, text, framings = _picked(batch, teacher)
        z_t = teacher.levels.add_noise(z_kept, batch.noise, batch.t)
        target = teacher.earlier_prediction(z_t, batch.t, text, framings)
        return PriorBatch(z_t, target, text, framings)


def _picked(batch: NoisedBatch, teacher: Teacher) -> tuple[Tensor, TextFeatures, Framings]:
    """As many pictures of what is kept as a batch has, of its size, at random: latents, text, framings."""
    z0 = batch.z0
    pool = teacher.kept[(z0.shape[2], z0.shape[3])]
    picks = [teacher.pick(len(pool.latents)) for _ in z0]
    latents = torch.stack([pool.latents[pick] for pick in picks]).to(z0.device)
    text = teacher.frozen_text([pool.prompts[pick] for pick in picks])
    return latents, text, [pool.framings[pick] for pick in picks]


_ALL: tuple[Prior, ...] = (ImageFree(), DrawnClassImages(), GivenClassImages(), Replay(), NoPrior())

PRIORS: dict[str, Prior] = {prior.name: prior for prior in _ALL}
