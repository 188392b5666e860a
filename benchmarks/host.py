"""ComfyUI in this process with one base model, for both benches."""

from __future__ import annotations

import tempfile
from pathlib import Path

from devtools.in_process import import_comfyui


def start_host() -> None:
    """ComfyUI with a base folder of its own: finished runs of earlier calls must not be taken for this one's."""
    import_comfyui(Path(tempfile.mkdtemp(prefix="cns-bench-")))
