"""Where the tools keep what they make: one folder that can be copied to another machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from .layout import BaseSize
from .training.contrastive import Tutor
from .training.loop import checkpoint_path, load_checkpoint
from .training.text_encoder import TextEncoder
from .training.unet import new_unet
from .training.vae import Vae
from .world.world import World
from .world.world_file import read_world

Module = TypeVar("Module", bound=nn.Module)

DEFAULT_FOLDER = Path(__file__).resolve().parent / "work"


class MissingStageError(FileNotFoundError):
    """An earlier tool has to run first."""


def world_path(folder: Path) -> Path:
    """The packed world."""
    return folder / "world.bin"


def load_world(folder: Path) -> World:
    """All of the world, held-out things included."""
    path = world_path(folder)
    if not path.is_file():
        raise MissingStageError(f"{path} does not exist: run `build` first, or copy the file there")
    return read_world(path)


def trained_on(world: World, size: BaseSize) -> World:
    """What the base of one size is trained on."""
    return world.subset(small=size.name == "s", held_out=False)


def judged_on(world: World, size: BaseSize) -> World:
    """What the judge of one size is trained on: all of that world, held-out things included."""
    return world.subset(small=size.name == "s", held_out=True)


def load_vae(folder: Path, size: BaseSize) -> Vae:
    """The averaged VAE, frozen."""
    vae = Vae()
    vae.load_state_dict({**vae.state_dict(), **load_stage(folder, f"vae-{size.name}", "vae")["average"]})
    return frozen(vae).to(memory_format=torch.channels_last)  # nearly twice as fast on a CPU


def load_text(folder: Path, size: BaseSize) -> tuple[TextEncoder, list[int]]:
    """The averaged text encoder, frozen, and the ids of its trained rows."""
    state = load_stage(folder, f"text-{size.name}", "clip")
    used_ids = state["used_ids"]
    text = TextEncoder(size.text_layers, used_ids)
    text.load_state_dict({**text.state_dict(), **state["average"]})
    return frozen(text), used_ids


def load_tutor(folder: Path, size: BaseSize, world: World) -> Tutor:
    """What saw the pictures while the text encoder was trained, frozen; `world` is what it was trained on."""
    state = load_stage(folder, f"text-{size.name}", "clip")
    tutor = Tutor(world, state["project"]["weight"].shape[0])
    tutor.load_state_dict(state["tutor"])
    return frozen(tutor)


def load_unet(folder: Path, size: BaseSize) -> nn.Module:
    """The averaged U-Net, frozen."""
    unet = new_unet(size.channel_mult)
    unet.load_state_dict(load_stage(folder, f"unet-{size.name}", "unet")["average"])
    return frozen(unet)


def trained_steps(folder: Path, size: BaseSize) -> dict[str, int]:
    """How many steps each of the base's networks was trained, by the command that does it."""
    stages = {"vae": "vae", "clip": "text", "unet": "unet"}
    return {
        command: int(_checkpoint(folder, f"{name}-{size.name}", command)["index"])
        for command, name in stages.items()
    }


def frozen(module: Module) -> Module:
    """The module, in evaluation mode and without gradients."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module.eval()


def load_stage(folder: Path, name: str, command: str) -> dict[str, Any]:
    """What the trainer `name` saved last; `command` is the one that trains it."""
    return _checkpoint(folder, name, command)["trainer"]


def _checkpoint(folder: Path, name: str, command: str) -> dict[str, Any]:
    path = checkpoint_path(folder, name)
    if not path.is_file():
        raise MissingStageError(f"{path} does not exist: run `{command}` first, or copy the file there")
    return load_checkpoint(path)
