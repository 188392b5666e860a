"""Makes this repository's packages importable by name while its root stays off sys.path, where its `nodes/`
would stand in front of the host's `nodes.py`; and ComfyUI in this process (`comfy`).
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import hypothesis
import pytest

if TYPE_CHECKING:
    from devtools.api_client import ApiClient
    from devtools.host_process import HostProcess

ROOT = Path(__file__).resolve().parent.parent

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


def _keep_root_off_the_path() -> None:
    # `python -m pytest` puts the current folder in as "", pytest's plugins may add it in full.
    def is_root(entry: str) -> bool:
        return Path(entry or os.getcwd()).resolve() == ROOT

    sys.path[:] = [entry for entry in sys.path if not is_root(entry)]


def _load_package(name: str) -> None:
    folder = ROOT / name
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} is not a package: it has no __init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


_keep_root_off_the_path()
sys.path.append(str(Path(__file__).with_name("support")))
for package in ("cns_core", "devtools", "small_base", "benchmarks"):
    _load_package(package)


@pytest.fixture(scope="session")
def host_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that ComfyUI in this process takes for its own: input/, output/, models/, ... ."""
    return tmp_path_factory.mktemp("comfyui-base")


@pytest.fixture(scope="session")
def comfy(host_base: Path) -> ModuleType:
    """ComfyUI's `comfy` package, with `folder_paths` pointing into `host_base`;
    `import nodes` gives the host's.
    """
    from devtools.in_process import import_comfyui

    import_comfyui(host_base)
    import comfy.model_management
    import comfy.sd
    import folder_paths

    assert Path(folder_paths.get_input_directory()) == host_base / "input"
    return comfy


class LoadedModel(NamedTuple):
    """What a checkpoint loader gives a graph."""

    model: Any
    clip: Any
    vae: Any


@pytest.fixture(scope="session")
def small_checkpoint(comfy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint's file, its text encoder of 2 layers; needs SMALL_TEXT_OPTIONS to be loaded."""
    from random_checkpoint import write_random_checkpoint

    return write_random_checkpoint(
        tmp_path_factory.mktemp("checkpoint") / "small_sd15.safetensors", small=True
    )


@pytest.fixture(scope="session")
def random_model(comfy: ModuleType, small_checkpoint: Path) -> LoadedModel:
    """MODEL, CLIP and VAE of the small random checkpoint. Shared: leave them as they were.

    Loaded under inference mode, as the host does: all weights are inference tensors.
    """
    import torch

    from random_checkpoint import SMALL_TEXT_OPTIONS

    with torch.inference_mode():
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
            str(small_checkpoint), output_vae=True, output_clip=True, te_model_options=SMALL_TEXT_OPTIONS
        )
    return LoadedModel(model, clip, vae)


@pytest.fixture(scope="session")
def live_process() -> Iterator[HostProcess]:
    """A ComfyUI server of its own process, with the small base; its folders lie under `.base`."""
    from devtools.host_process import HostProcess
    from devtools.staging import stage_checkpoint, stage_clip

    with HostProcess() as host:
        stage_checkpoint(host.base, None)
        stage_clip(host.base, None)
        yield host


@pytest.fixture(scope="session")
def live_host(live_process: HostProcess) -> Iterator[ApiClient]:
    """A client of that server; its checkpoint is named `SMALL_CHECKPOINT`."""
    from devtools.api_client import ApiClient

    with ApiClient(live_process.url) as client:
        yield client
