"""The pack in ComfyUI in this process, a model of it (`random_model`), a server (`live_host`): one each."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest

from devtools.paths import ROOT


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
