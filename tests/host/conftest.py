"""The pack in ComfyUI in this process, a model of it (`random_model`), a server (`live_host`): one each."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from bits import bits

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


@pytest.fixture(scope="session")
def nodes(pack):
    extension = asyncio.run(pack.comfy_entrypoint())
    return {n.GET_SCHEMA().node_id: n for n in asyncio.run(extension.get_node_list())}


@pytest.fixture(scope="session")
def run(nodes):
    def call(node_id, **inputs):
        schema = nodes[node_id].GET_SCHEMA()
        defaults = {i.id: i.default for i in schema.inputs if getattr(i, "default", None) is not None}
        given = {**defaults, **inputs}
        if schema.is_input_list:
            given = {name: value if isinstance(value, list) else [value] for name, value in given.items()}
        with torch.inference_mode():
            output = nodes[node_id].execute(**given)
        return output.args

    return call


@pytest.fixture(scope="session")
def models(random_model):
    return {"model": random_model.model, "clip": random_model.clip}


@pytest.fixture
def untouched(random_model):
    """Whatever the test does: afterwards MODEL, CLIP and VAE are bit for bit as before and carry no hooks."""
    parts = {
        "model": random_model.model.model,
        "clip": random_model.clip.cond_stage_model,
        "vae": random_model.vae.first_stage_model,
    }
    before = {n: {k: v.clone() for k, v in m.state_dict().items()} for n, m in parts.items()}
    dtype = random_model.model.model.manual_cast_dtype
    yield
    for name, module in parts.items():
        after = module.state_dict()
        assert after.keys() == before[name].keys()
        assert all(torch.equal(bits(after[k]), bits(v)) for k, v in before[name].items()), name
        for part in module.modules():
            assert not getattr(part, "weight_function", None)
            assert not part._forward_hooks and not part._forward_pre_hooks and not part._backward_hooks
            assert not hasattr(part, "parametrizations")
        assert all(not p.requires_grad or p.is_inference() for p in module.parameters())
    assert random_model.model.model.manual_cast_dtype is dtype
    assert not random_model.model.weight_wrapper_patches and not random_model.model.patches
    assert torch.is_inference_mode_enabled() is False
