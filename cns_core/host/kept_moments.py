"""Moments of general prompts, kept on disk: thousands of prompts are encoded once for each text encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from safetensors.torch import save
from torch import Tensor

from ..tensor_file import TensorFileError, read_tensors
from .identity import text_identity
from .kept import keep, set_aside, used
from .known_models import computes_as, lasting_digest
from .paths import work_folder
from .types import Clip


class KeptMoments:
    """Moments of prompts as one text encoder reads them.

    notes: what there is to tell about what could not be kept, or was not sound.
    """

    def __init__(self, clip: Clip, tokens: str, width: int) -> None:
        self._encoder, self._tokens, self._width = computes_as(text_identity(clip), clip), tokens, width
        self.notes: list[str] = []

    def get(self, prompts: Sequence[str], make: Callable[[], Tensor]) -> Tensor:
        """What `make` gives for these prompts, `(width, width)` float64, or what it gave before.

        The key holds the text encoder's weights as they are patched, the clip skip, the prompts and which
        tokens count.
        """
        key = lasting_digest(self._encoder, self._tokens, *prompts)
        path = work_folder("moments") / f"{key}.safetensors"
        if path.exists():
            try:
                moment = self._checked(read_tensors(path).tensors.get("moment"))
            except TensorFileError as error:
                self.notes.append(set_aside(path, error))
            else:
                used(path)
                return moment
        made = make()
        if note := keep(path, save({"moment": made})):
            self.notes.append(note)
        return made

    def _checked(self, moment: Tensor | None) -> Tensor:
        expected = (torch.float64, (self._width, self._width))
        found = None if moment is None else (moment.dtype, tuple(moment.shape))
        if moment is None or found != expected or not bool(torch.isfinite(moment).all()):
            raise TensorFileError(f"no second moment {expected} in it, or one that is not finite: {found}")
        return moment
