"""Results and checkpoints of training runs, kept on disk under a key of everything that decides the result.

The host drops cached results when memory is short and loses them when it closes; queueing the same graph
again must neither train again nor start from scratch.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..checkpoint import CheckpointError, TrainerState, load_state, save_state
from ..memory import ConceptMemory, LearnedConcept
from ..memory_file import MemoryFileError, load_memory, save_memory
from .kept import CHECKPOINT, remove, set_aside, used
from .paths import check_writable

_RUN = "cns_run"  # in the result's metadata: which run's it is


@dataclass
class Run:
    """One training run on disk.

    notes: what there is to tell about what was kept and what could not be; kept_step: of the newest
    checkpoint that is on disk.
    """

    folder: Path
    key: str
    notes: list[str] = field(default_factory=list)
    kept_step: int = 0

    @property
    def result_file(self) -> Path:
        return self.folder / f"{self.key}.safetensors"

    @property
    def checkpoint_file(self) -> Path:
        return self.folder / f"{self.key}{CHECKPOINT}"

    def result(self, fault: Callable[[ConceptMemory], str | None]) -> LearnedConcept | None:
        """What was learned when the run was finished before.

        fault: what is wrong with a memory that should hold this concept alone, or None.
        """
        path = self.result_file
        if not path.exists():
            return None
        try:
            memory = load_memory(path, {_RUN: self.key})
            why = fault(memory)
        except MemoryFileError as error:
            why = str(error)
        if why is not None:
            self.notes.append(set_aside(path, why))
            return None
        used(path)
        return memory.concepts[0]

    def checkpoint(self) -> TrainerState | None:
        """Where the run was stopped before."""
        path = self.checkpoint_file
        try:
            return load_state(path, self.key) if path.exists() else None
        except CheckpointError as error:
            self.refuse_checkpoint(error)
            return None

    def refuse_checkpoint(self, error: CheckpointError) -> None:
        """It does not belong to this run after all."""
        self.notes.append(set_aside(self.checkpoint_file, error))

    def check_space(self, needed: int) -> None:
        """ValueError when so many bytes do not fit on the disk; before any long work. A folder that cannot be
        written is told: the training needs none.
        """
        try:
            check_writable(self.result_file)
            free = shutil.disk_usage(self.folder).free
        except (ValueError, OSError) as error:
            self.notes.append(f"Nothing of this training can be kept for the next time: {error}")
            return
        if free < needed:
            raise ValueError(
                f"Training keeps about {needed / 1e6:.1f} MB in {self.folder}, but {free / 1e6:.1f} MB are "
                "free. Free some space first; what lies in that folder may be deleted, except for runs that "
                "you want to go on with."
            )

    def save_checkpoint(self, state: TrainerState, step: int) -> None:
        """Keep it, or tell once why that is not possible; training goes on without."""
        try:
            save_state(self.checkpoint_file, state, self.key)
        except OSError as error:
            # One that was kept before is still whole.
            note = f"A checkpoint could not be kept: {error.strerror or error}"
            if note not in self.notes:
                self.notes.append(note)
            return
        self.kept_step = step

    def told_kept(self) -> str:
        """What is left of a run that ends early, as a sentence."""
        if not self.kept_step:
            return "Nothing of it could be kept on disk."
        return f"What was learned until step {self.kept_step} is kept: queue the same graph again to go on."

    def finish(self, memory: ConceptMemory) -> None:
        """Keep the last concept of a memory; the checkpoint has done its work."""
        alone = ConceptMemory(memory.base, memory.layout, memory.concepts[-1:])
        try:
            save_memory(self.result_file, alone, {_RUN: self.key})
        except OSError as error:  # the memory itself is whole, and goes on to the nodes that wait for it
            self.notes.append(
                f"The result could not be kept for the next time: {error.strerror} Save it with Save Concept "
                "Memory: once ComfyUI is closed, nothing else holds it."
            )
            return
        remove(self.checkpoint_file)
