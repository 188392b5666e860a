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
from PIL import Image

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


@pytest.fixture
def few_prompts(pack, monkeypatch):
    """As many general prompts as a test has time for."""
    protected = sys.modules[f"{pack.__name__}.cns_core.protected"]
    for device in ("CPU", "GPU"):
        monkeypatch.setattr(protected, f"AUTOMATIC_ON_{device}", 16)


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
    import comfy.model_management as management

    management.unload_all_models()  # what a test before this has drawn with may still be merged into them
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
            assert not hasattr(part, "parametrizations") and "forward" not in vars(part)
        assert all(not p.requires_grad or p.is_inference() for p in module.parameters())
    assert random_model.model.model.manual_cast_dtype is dtype
    assert not random_model.model.weight_wrapper_patches and not random_model.model.patches
    assert torch.is_inference_mode_enabled() is False


@pytest.fixture(scope="session")
def photos(pack, host_base):
    """Two small folders of pictures below the input directory."""
    generator = torch.Generator().manual_seed(3)
    for folder in ("dog", "mug"):
        place = host_base / "input" / folder
        place.mkdir(exist_ok=True)
        for i in range(3):
            pixels = torch.randint(0, 255, (80, 64 + 16 * i, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(place / f"{i}.png")
    return host_base / "input"


@pytest.fixture(scope="session")
def dog(run, photos):
    return run("LoadConceptImages", name="my dog", class_word="dog", folder="dog", resolution=64)[0]


@pytest.fixture(scope="session")
def mug(run, photos):
    return run("LoadConceptImages", name="my mug", class_word="mug", folder="mug", resolution=64)[0]


@pytest.fixture(scope="session")
def select(run, models):
    def call(concept, **inputs):
        settings = {"what_may_move": "neurons", "calibration_prompts": 16, **inputs}
        return run("SelectConceptNeurons", **models, concept=concept, **settings)

    return call


@pytest.fixture(scope="session")
def dog_neurons(select, dog):
    return select(dog)[0]


@pytest.fixture(scope="session")
def train(run, models, random_model):
    def call(concept, neurons, **inputs):
        settings = {"steps": 4, "neuron_lr": 1e-3, "batch_size": 2, **inputs}
        return run(
            "ContinualTrain", **models, vae=random_model.vae, concept=concept, neurons=neurons, **settings
        )

    return call


@pytest.fixture(scope="session")
def dog_memory(train, dog, dog_neurons):
    return train(dog, dog_neurons)[0]


@pytest.fixture(scope="session")
def both(train, select, mug, dog_memory):
    neurons = select(mug, memory=dog_memory)[0]
    return train(mug, neurons, memory=dog_memory)[0]


@pytest.fixture
def hook(comfy, monkeypatch):
    """Sets the host's progress hook, which sees every step and preview."""
    import comfy.utils

    for limit in ("PROGRESS_THROTTLE_MIN_INTERVAL", "PROGRESS_THROTTLE_MIN_PERCENT"):
        monkeypatch.setattr(comfy.utils, limit, 0, raising=False)  # newer hosts leave out what comes fast
    before = comfy.utils.PROGRESS_BAR_HOOK
    yield comfy.utils.set_progress_bar_global_hook
    comfy.utils.set_progress_bar_global_hook(before)
