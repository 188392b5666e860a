"""Fills a host's base folder with what the workflows expect: a checkpoint, a CLIP model, photos."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .base_command import expand
from .errors import DevToolError
from .host_process import link_or_copy
from .paths import HOST_BASE, ROOT

SMALL_CHECKPOINT = "emoji_base_s.safetensors"
PACKED_BASE = ROOT / "small_base" / "packed" / "base-s.safetensors.xz"
JUDGE = ROOT / "small_base" / "judge" / "model"
JUDGE_NAME = "small_judge"  # below the host's models/
SHIPPED_CONCEPTS = ROOT / "workflows" / "images"
# The shipped ones that a demo learns, in this order.
DEMO_CONCEPTS = ("panda", "tropical-fish", "pop-print-style")


def stage_checkpoint(base: Path, checkpoint: Path | None) -> str:
    """Put `checkpoint`, or the small base model, into the host's folder; gives back its name there."""
    folder = base / "models" / "checkpoints"
    if checkpoint is None:
        link_or_copy(expanded_base(), folder / SMALL_CHECKPOINT)
        return SMALL_CHECKPOINT
    source = checkpoint.expanduser().resolve()
    if not source.is_file():
        raise DevToolError(
            f"--checkpoint {checkpoint}: there is no such file. Give an SD 1.x .safetensors file."
        )
    link_or_copy(source, folder / source.name)
    return source.name


def expanded_base() -> Path:
    """The small base model as ComfyUI loads it (300 MB), expanded when the repository's file is new."""
    digest = hashlib.sha256(PACKED_BASE.read_bytes()).hexdigest()
    path = HOST_BASE / "expanded" / f"{PACKED_BASE.name.partition('.')[0]}-{digest[:16]}.safetensors"
    if not path.is_file():
        print(f"[stage] expanding {PACKED_BASE.name} to a checkpoint of 300 MB", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        expand(PACKED_BASE, path)
    return path


def stage_clip(base: Path, clip_model: str | None) -> str:
    """Make a CLIP model known to the host; gives back its name for CLIPScore.

    A folder is copied, for the pack refuses links that lead out of models/; any other name is taken for a
    Hugging Face id; None gives the small judge, which knows emoji scenes alone.
    """
    source = JUDGE if clip_model is None else Path(clip_model).expanduser().resolve()
    if clip_model is not None and not source.is_dir():
        return clip_model
    name = JUDGE_NAME if clip_model is None else source.name
    link_or_copy(source, base / "models" / name, link=False)
    return name


def stage_images(base: Path, folders: list[Path]) -> None:
    """Copy folders of photos into the host's input folder: the pack refuses links that lead out of it."""
    for folder in folders:
        link_or_copy(folder, base / "input" / folder.name, link=False)
