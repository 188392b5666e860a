"""Does jobs: ComfyUI and one base model in this process."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.paths import ROOT
from devtools.staging import JUDGE, expanded_base

from ..host import start_host
from .jobs import LEARN, Job
from .variants import SETTINGS

if TYPE_CHECKING:
    from .bench import Bench

RESOLUTION, CFG = 64, 3.0  # of the small base
BASE = {"resolution": RESOLUTION, "cfg": CFG}


def made_with() -> dict[str, Any]:
    """Of what code, when and how a record is; commit: empty outside a checkout."""
    import torch

    asked = ["git", "rev-parse", "--short=12", "HEAD"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "commit": done.stdout.strip(),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "threads": torch.get_num_threads(),
    }


class Worker:
    """kinds of jobs: `learn` (`streams.py`), and `overlap`, `entries` and `unlearn` (files of these names).

    Args:
        output: the file of the records; what is drawn lies in the folder beside it.
    """

    def __init__(
        self,
        output: Path,
        checkpoint: Path | None = None,
        judge: Path = JUDGE,
        resolution: int = RESOLUTION,
        cfg: float = CFG,
    ) -> None:
        start_host()
        from .bench import Bench, Options

        settings = {name: default for name, default, _ in SETTINGS}
        self._bench = Bench(Options(checkpoint or expanded_base(), judge, resolution, cfg, output, settings))

    def __call__(self, job: Job) -> Mapping[str, Any]:
        import torch

        from .entries import ENTRIES, entries
        from .overlap import OVERLAP, overlap
        from .streams import learned
        from .unlearn import UNLEARN, unlearned

        kinds: dict[str, Callable[[Bench, Mapping[str, Any]], dict[str, Any]]] = {
            LEARN: learned,
            OVERLAP: overlap,
            ENTRIES: entries,
            UNLEARN: unlearned,
        }
        with torch.inference_mode():  # as the host runs nodes
            return {**kinds[job.kind](self._bench, job.values), "made_with": made_with()}
