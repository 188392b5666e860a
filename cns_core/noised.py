"""Pictures that are noised once and for all: errors of predicting their noise can be compared to the last
digit. Noise levels are spread evenly, which leaves less to chance than drawing them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .backend import DiffusionBackend
from .framing import Framings
from .objective import prediction_error
from .schedule import NoiseLevels
from .text_features import TextFeatures
from .training import LatentImage

# Latent cells that are predicted at once: four pictures of 512 pixels.
_CELLS_AT_ONCE = 4 * 64 * 64
_ENCODED_AT_ONCE = 16  # prompts


@dataclass(frozen=True, eq=False)
class Noised:
    """Noised latents `(n, C, h, w)`, their noise levels `(n,)`, and what the model should predict."""

    z_t: Tensor
    t: Tensor
    target: Tensor


def even_levels(count: int, levels: NoiseLevels, generator: torch.Generator) -> Tensor:
    """Noise levels `(count,)`, one in each of as many equal parts of the schedule, in any order."""
    even = (torch.arange(count) + torch.rand(count, generator=generator)) * (len(levels) / count)
    return even.long().clamp(max=len(levels) - 1)[torch.randperm(count, generator=generator)]


def noised(z0: Tensor, t: Tensor, levels: NoiseLevels, generator: torch.Generator) -> Noised:
    """Latents `(n, C, h, w)` with new noise, at noise levels `(n,)`."""
    noise = torch.randn(z0.shape, generator=generator)
    return Noised(levels.add_noise(z0, noise, t), t, levels.target(z0, noise, t))


@dataclass(frozen=True, eq=False)
class _Batch:
    """Samples of one size, by their numbers; framings: what their pictures were cut from; mask:
    `(n, 1, h, w)` or None for all of the picture.
    """

    rows: list[int]
    noised: Noised
    framings: Framings
    mask: Tensor | None


class NoisedPictures:
    """A concept's pictures, each as often as any other, with captions of theirs; encoded as the backend
    encodes when this is made, which has to know the token.

    masked: count errors only where the pictures' masks are white.
    """

    def __init__(
        self, backend: DiffusionBackend, images: Sequence[LatentImage], samples: int, seed: int, masked: bool
    ) -> None:
        self._backend = backend
        generator = torch.Generator().manual_seed(seed)
        picked = [images[i % len(images)] for i in range(samples)]
        t = even_levels(samples, backend.levels, generator)
        places = [int(torch.randint(len(image.captions), (), generator=generator)) for image in picked]
        chosen = list(zip(picked, places, strict=True))
        self._own = _Encoded(backend, [image.captions[place] for image, place in chosen])
        self._of_class = _Encoded(backend, [image.class_captions[place] for image, place in chosen])
        self._batches: list[_Batch] = []
        for height, width in sorted({image.size for image in picked}):
            rows = [row for row, image in enumerate(picked) if image.size == (height, width)]
            at_once = max(1, _CELLS_AT_ONCE // (height * width))
            for some in (rows[i : i + at_once] for i in range(0, len(rows), at_once)):
                shown = [picked[row] for row in some]
                z0 = torch.stack([image.latents for image in shown]).clone()  # no tensor of inference mode
                found = noised(z0, t[some], backend.levels, generator)
                framings = [image.framing for image in shown]
                self._batches.append(_Batch(some, found, framings, _masks(shown) if masked else None))

    def __len__(self) -> int:
        """How many predictions one call of `errors` makes."""
        return len(self._batches)

    def errors(self, class_word: bool = False) -> Iterator[Tensor]:
        """The mean squared error of each sample, float64 `(n,)` on the CPU, batch by batch, always in one
        order; under the captions with the token, or those with the class word.
        """
        text, device = self._of_class if class_word else self._own, self._backend.device
        for batch in self._batches:
            z_t, t = batch.noised.z_t.to(device), batch.noised.t.to(device)
            prediction = self._backend.predict(z_t, t, text.rows(batch.rows), batch.framings)
            yield prediction_error(prediction.cpu(), batch.noised.target, batch.mask).double()


class _Encoded:
    """Prompts, each encoded once."""

    def __init__(self, backend: DiffusionBackend, prompts: Sequence[str]) -> None:
        unique = list(dict.fromkeys(prompts))
        parts = [unique[i : i + _ENCODED_AT_ONCE] for i in range(0, len(unique), _ENCODED_AT_ONCE)]
        self._text = TextFeatures.concatenated([backend.encode(part, None).detached() for part in parts])
        self._rows = [unique.index(prompt) for prompt in prompts]

    def rows(self, rows: Sequence[int]) -> TextFeatures:
        return self._text.rows([self._rows[row] for row in rows])


def _masks(images: Sequence[LatentImage]) -> Tensor:
    return torch.stack([torch.ones_like(i.latents[:1]) if i.mask is None else i.mask for i in images])
