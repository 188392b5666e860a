"""Fills a host's base folder with what the workflows expect: a checkpoint, a CLIP model, photos."""

from __future__ import annotations

from pathlib import Path

from .errors import DevToolError
from .host_process import link_or_copy
from .paths import ROOT
from .random_checkpoint import write_random_checkpoint

RANDOM_CHECKPOINT = "random_sd15.safetensors"
BUILT_IN_CLIP = "built-in"  # as the score node calls it
SHIPPED_CONCEPTS = ROOT / "workflows" / "images"
DEMO_CONCEPTS = ("panda", "teapot", "blueprint-style")  # the shipped ones that a demo learns, in this order


def stage_checkpoint(base: Path, checkpoint: Path | None) -> str:
    """Put `checkpoint`, or the random one, into the host's folder; gives back its name there."""
    folder = base / "models" / "checkpoints"
    if checkpoint is None:
        if not (folder / RANDOM_CHECKPOINT).is_file():
            print("[stage] making a random checkpoint in SD 1.5's layout", flush=True)
            write_random_checkpoint(folder / RANDOM_CHECKPOINT)
        return RANDOM_CHECKPOINT
    source = checkpoint.expanduser().resolve()
    if not source.is_file():
        raise DevToolError(
            f"--checkpoint {checkpoint}: there is no such file. Give an SD 1.x .safetensors file."
        )
    link_or_copy(source, folder / source.name)
    return source.name


def stage_clip(base: Path, clip_model: str | None) -> str:
    """Make a CLIP model known to the host; gives back its name for CLIPScore.

    A folder is copied, for the pack refuses links that lead out of models/; any other name is taken for a
    Hugging Face id; None gives the built-in one.
    """
    if clip_model is None:
        return BUILT_IN_CLIP
    source = Path(clip_model).expanduser()
    if not source.is_dir():
        return clip_model
    link_or_copy(source.resolve(), base / "models" / source.resolve().name, link=False)
    return source.resolve().name


def stage_images(base: Path, folders: list[Path]) -> None:
    """Copy folders of photos into the host's input folder: the pack refuses links that lead out of it."""
    for folder in folders:
        link_or_copy(folder, base / "input" / folder.name, link=False)
