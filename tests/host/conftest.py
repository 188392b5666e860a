"""ComfyUI in this process (`comfy`), a model of it (`random_model`), a server (`live_host`): one each."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch

from devtools.api_client import ApiClient
from devtools.comfyui_source import check_is_comfyui
from devtools.host_process import HostProcess
from devtools.paths import ROOT, comfyui_directory
from devtools.random_checkpoint import SMALL_TEXT_OPTIONS, write_random_checkpoint
from devtools.staging import stage_checkpoint


class LoadedModel(NamedTuple):
    """What a checkpoint loader gives a graph."""

    model: Any
    clip: Any
    vae: Any


@pytest.fixture(scope="session")
def host_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that ComfyUI in this process takes for its own: input/, output/, models/, ... ."""
    base = tmp_path_factory.mktemp("comfyui-base")
    for folder in ("input", "output", "temp", "user", "custom_nodes", "models/checkpoints"):
        (base / folder).mkdir(parents=True)
    return base


@pytest.fixture(scope="session")
def comfy(host_base: Path) -> ModuleType:
    """ComfyUI's `comfy` package, on the CPU, with `folder_paths` pointing into `host_base`.

    ComfyUI's folder comes first on sys.path, so `import nodes` gives the host's.
    """
    comfyui = comfyui_directory()
    check_is_comfyui(comfyui)
    sys.path.insert(0, str(comfyui))
    import comfy.cli_args  # parses no command line unless asked to: pytest's own stays out of it

    # Before anything reads them: folder_paths and comfy.model_management look once, when they are imported.
    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    comfy.cli_args.args.base_directory = str(host_base)
    import comfy.model_management
    import comfy.sd
    import folder_paths

    assert Path(folder_paths.get_input_directory()) == host_base / "input"
    return comfy


@pytest.fixture(scope="session")
def pack(comfy: ModuleType) -> ModuleType:
    """This pack, loaded the way the host does it: by file, as a package that is not on sys.path."""
    name = "ComfyUI_CNS"
    spec = importlib.util.spec_from_file_location(
        name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random checkpoint's file, with the full text encoder: any stock loader reads it."""
    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "random_sd15.safetensors")


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with 2 text layers; needs SMALL_TEXT_OPTIONS to be loaded."""
    return write_random_checkpoint(
        tmp_path_factory.mktemp("checkpoint") / "small_sd15.safetensors", small=True
    )


@pytest.fixture(scope="session")
def random_model(comfy: ModuleType, small_checkpoint: Path) -> LoadedModel:
    """MODEL, CLIP and VAE of the small random checkpoint. Shared: leave them as they were.

    Loaded under inference mode, as the host does: all weights are inference tensors.
    """
    with torch.inference_mode():
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
            str(small_checkpoint), output_vae=True, output_clip=True, te_model_options=SMALL_TEXT_OPTIONS
        )
    return LoadedModel(model, clip, vae)


@pytest.fixture(scope="session")
def backend_module(pack: ModuleType) -> ModuleType:
    """The module of the training backend, in the host that has loaded the pack."""
    asyncio.run(pack.comfy_entrypoint())
    from ComfyUI_CNS.cns_core.host import backend

    return backend


@pytest.fixture(scope="session")
def float32(pack: ModuleType, comfy: ModuleType) -> Any:
    """A precision that is the same on every machine.

    What is compared closely has to be computed in it: in bfloat16, which training takes where the CPU has
    instructions for it, results depend on the thread count and on how many prompts are encoded together.
    """
    from ComfyUI_CNS.cns_core.host.precision import FLOAT32

    return FLOAT32


@pytest.fixture(scope="session")
def live_process() -> Iterator[HostProcess]:
    """A ComfyUI server of its own process, with the small base; its folders lie under `.base`."""
    with HostProcess() as host:
        stage_checkpoint(host.base, None)
        yield host


@pytest.fixture(scope="session")
def live_host(live_process: HostProcess) -> Iterator[ApiClient]:
    """A client of that server; its checkpoint is named `SMALL_CHECKPOINT`."""
    with ApiClient(live_process.url) as client:
        yield client
