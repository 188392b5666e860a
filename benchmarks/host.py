"""ComfyUI in this process with one base model, for both benches."""

from __future__ import annotations

import tempfile
from pathlib import Path

from devtools.in_process import import_comfyui


def start_host() -> None:
    """ComfyUI with a new base folder, so that no finished run of an earlier call is taken for this one's."""
    import_comfyui(Path(tempfile.mkdtemp(prefix="cns-bench-")))
