"""Whether a training step fits into the device's memory, and gradient checkpointing where it does not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import comfy.model_management as management
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import Tensor, nn

from ..footprint import Footprint, Kept, kept_for_backward, recomputed, storage_of
from ..settings import check, choice
from . import notices

AUTOMATIC, ALWAYS, NEVER = "automatic", "always", "never"

# Beyond what is kept: the largest intermediate results, and what allocators lose between blocks.
_ROOM, _CUSHION = 1.15, 200 * 2**20
_LEAST_SIDE = 8  # latent cells: the U-Net halves them three times

Predict = Callable[[Tensor], Tensor]  # of a small batch of latents


@dataclass(frozen=True)
class MemoryUse:
    """What a training may take of the device's memory."""

    checkpointing: str = choice(
        AUTOMATIC,
        (AUTOMATIC, ALWAYS, NEVER),
        "Gradient checkpointing: what a step needs for its backward is computed again instead of kept. "
        "Much less memory, and a step takes about half as long again; what is learned is the same. "
        "automatic: where a step would not fit into what is free.",
        rare=True,
    )

    def __post_init__(self) -> None:
        check(self)


class TrainingMemory:
    """Decides before each forward, by arithmetic, and tells before the first one what a step needs and what
    is free. Only that one is preceded by three forwards on a corner of its latents, in which what is kept is
    counted (`footprint.py`).

    Attributes:
        to_come: bytes that are still to be taken in training: of gradients and the optimizer's state.
        notes: what was told of it, for people.
    """

    def __init__(self, unet: nn.Module, device: torch.device) -> None:
        self.use = MemoryUse()
        self.to_come = 0
        self.notes: list[str] = []
        self._unet, self._device = unet, device
        self._blocks = [m for m in unet.modules() if isinstance(m, BasicTransformerBlock | ResBlock)]
        self._footprint: Footprint | None = None
        self._free = 0.0
        self._recomputes = False

    def forward(self, z_t: Tensor, predict: Predict) -> AbstractContextManager[None]:
        """The context for a forward of latents `(B, C, h, w)`. predict: the same for other latents."""
        if not torch.is_grad_enabled():
            return nullcontext()
        first = self._footprint is None
        if first or (self.use.checkpointing == AUTOMATIC and not self._recomputes):
            whole, less = self._needs(z_t, predict)
            self._recomputes = self.use.checkpointing == ALWAYS or (
                self.use.checkpointing == AUTOMATIC and whole > self._free
            )
            if first or self._recomputes:
                self._tell(whole, less)
        return recomputed(self._blocks) if self._recomputes else nullcontext()

    def _needs(self, z_t: Tensor, predict: Predict) -> tuple[float, float]:
        """Bytes that a step takes, and those with checkpointing."""
        if self._footprint is None:
            self._free = float(management.get_free_memory(self._device))
            self._footprint = self._counted(z_t, predict)
        rows, cells = z_t.shape[0], z_t.shape[2] * z_t.shape[3]
        found = self._footprint
        return self.needed(found.whole.bytes(rows, cells)), self.needed(found.recomputed.bytes(rows, cells))

    def _tell(self, whole: float, less: float) -> None:
        needs = f"A training step needs about {_gb(whole)} beside the loaded models"
        needs += f", and {_gb(self._free)} are free"
        switched_on = self._recomputes and self.use.checkpointing == AUTOMATIC
        takes = less if self._recomputes else whole
        if switched_on:
            told = (
                f"{needs}: gradient checkpointing was switched on, with which it needs {_gb(less)} and takes "
                "about half as long again."
            )
        elif self._recomputes:
            told = f"{needs}; with gradient checkpointing it needs {_gb(less)}."
        elif whole > self._free:
            told = f"{needs}: set checkpointing to automatic, with which it needs {_gb(less)}."
        else:
            told = f"{needs}."
        if less > self._free:
            told += (
                " That may still be too much: lower the batch size (gradient accumulation makes up for it) "
                "or the concept's resolution, use prior 'none', or close other programs."
            )
        self.notes.append(told)
        if switched_on or takes > self._free:
            notices.tell(told, warns=takes > self._free)
        else:
            logging.info(f"CNS: {told}")

    def needed(self, kept: float) -> float:
        """Bytes that a step takes, of those that its forward keeps."""
        return _ROOM * kept + self.to_come + _CUSHION

    def _counted(self, z_t: Tensor, predict: Predict) -> Footprint:
        constants = {storage_of(p) for p in self._unet.parameters()}

        def count(rows: int, side: int) -> Kept:
            corner = z_t[:1, :, :side, :side].expand(rows, -1, -1, -1)
            short = [max(side - have, 0) for have in corner.shape[2:]]
            latents = torch.nn.functional.pad(corner, (0, short[1], 0, short[0]))
            return kept_for_backward(lambda: predict(latents), self._blocks, constants)

        return Footprint.counted(count, self._side(z_t))

    @staticmethod
    def _side(z_t: Tensor) -> int:
        """A quarter of the smaller one, in what the U-Net can halve."""
        return max(min(z_t.shape[2:]) // 4 // _LEAST_SIDE * _LEAST_SIDE, _LEAST_SIDE)


def _gb(size: float) -> str:
    return f"{size / 2**30:.1f} GB"
