"""`dev.py host`: ComfyUI with this pack alone, to work in by hand."""

from __future__ import annotations

from pathlib import Path

from .host_process import HostProcess
from .paths import HOST_BASE
from .staging import SHIPPED_CONCEPTS, stage_checkpoint, stage_clip, stage_images


def run_host(port: int, checkpoint: Path | None) -> int:
    """Run the host in `.host/` until Ctrl-C or until it ends; gives back an exit code."""
    host = HostProcess(base=HOST_BASE, port=port, echo=True)
    names = [stage_checkpoint(host.base, None)]
    if checkpoint is not None:
        names.append(stage_checkpoint(host.base, checkpoint))
    clip = stage_clip(host.base, None)
    if SHIPPED_CONCEPTS.is_dir():
        stage_images(host.base, sorted(path for path in SHIPPED_CONCEPTS.iterdir() if path.is_dir()))
    try:
        with host:
            print(f"\nComfyUI is at {host.url} (base folder {host.base}). Ctrl-C stops it.")
            print(f"Checkpoints: {', '.join(names)}; CLIP model for CLIPScore: {clip}.")
            print("The small base and the small judge know emoji scenes of 64 pixels alone.", flush=True)
            return host.wait()
    except KeyboardInterrupt:
        print("\nstopped")
        return 0
