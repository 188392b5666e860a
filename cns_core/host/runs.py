"""Results and checkpoints of training runs, kept on disk under a key of everything that decides the result.

The host drops cached results when memory is short and loses them when it closes; queueing the same graph
again must neither train again nor start from scratch.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint import TrainerState, load_state, save_state
from ..memory import ConceptMemory
from ..memory_file import load_memory, save_memory


@dataclass(frozen=True)
class Run:
    """One training run on disk."""

    folder: Path
    key: str

    @property
    def result_file(self) -> Path:
        return self.folder / f"{self.key}.safetensors"

    @property
    def checkpoint_file(self) -> Path:
        return self.folder / f"{self.key}.checkpoint.safetensors"

    def result(self) -> ConceptMemory | None:
        return load_memory(self.result_file) if self.result_file.exists() else None

    def checkpoint(self) -> TrainerState | None:
        return load_state(self.checkpoint_file, self.key) if self.checkpoint_file.exists() else None

    def check_space(self, needed: int) -> None:
        """ValueError when so many bytes do not fit on the disk; before any long work."""
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise ValueError(
                f"Training keeps about {needed / 1e6:.1f} MB in {self.folder}, but {free / 1e6:.1f} MB are "
                "free. Free some space first; what lies in that folder may be deleted, except for runs that "
                "you want to go on with."
            )

    def save_checkpoint(self, state: TrainerState) -> None:
        save_state(self.checkpoint_file, state, self.key)

    def finish(self, memory: ConceptMemory) -> None:
        """Keep the result; the checkpoint has done its work."""
        save_memory(self.result_file, memory)
        self.checkpoint_file.unlink(missing_ok=True)
