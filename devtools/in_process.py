"""ComfyUI in this process: for benches, the small base's tools and tests."""

from __future__ import annotations

import sys
from pathlib import Path

from .comfyui_source import check_is_comfyui
from .host_process import make_base_directory
from .paths import ROOT, comfyui_directory


def import_comfyui(base: Path | None = None) -> None:
    """Make `comfy`, `folder_paths` and the host's `nodes` importable; on the GPU where there is one.

    base: the folder that ComfyUI takes for its own (input/, output/, models/, ...), completed where parts are
    missing; None leaves it at ComfyUI's. It counts at the first call alone.
    """
    if "comfy.cli_args" in sys.modules:
        return
    comfyui = comfyui_directory()
    check_is_comfyui(comfyui)
    # The repository, if it is there, comes last: its own `nodes` must not stand in front of the host's.
    others = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    mine = [str(ROOT)] if len(others) < len(sys.path) else []
    sys.path[:] = [str(comfyui), *others, *mine]
    import comfy.cli_args  # parses no command line unless asked to
    import torch

    # Before anything reads them: folder_paths and comfy.model_management look once, when they are imported.
    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    if base is not None:
        make_base_directory(base, packs={})
        comfy.cli_args.args.base_directory = str(base)
