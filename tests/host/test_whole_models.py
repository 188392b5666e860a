"""MODEL and CLIP as training loads them, and what else is asked of the host about them."""

from types import SimpleNamespace

import pytest
import torch


@pytest.fixture
def whole(backend_module):
    from ComfyUI_CNS.cns_core.host import whole_models

    return whole_models


def test_a_streamed_model_that_cannot_be_loaded_again_is_refused_beforehand(whole, random_model):
    model, clip = random_model.model.clone(), random_model.clip.clone()
    whole.check_whole(model, clip)
    model.is_dynamic, model.cached_patcher_init = (lambda: True), None
    with pytest.raises(ValueError, match=r"streams this MODEL.*Load Checkpoint.*--disable-dynamic-vram"):
        whole.check_whole(model, clip)
    model.cached_patcher_init = (object, ())
    whole.check_whole(model, clip)
    clip.patcher.is_dynamic, clip.patcher.cached_patcher_init = (lambda: True), None
    with pytest.raises(ValueError, match=r"streams this CLIP"):
        whole.check_whole(model, clip)


def test_a_whole_clip_reads_with_the_encoder_that_its_patcher_loads(whole, random_model):
    clip = whole.whole_clip(random_model.clip)
    assert clip.cond_stage_model is clip.patcher.model
    assert clip.patcher is not random_model.clip.patcher


def test_the_text_encoder_is_told_where_to_compute(whole, random_model, monkeypatch):
    from ComfyUI_CNS.cns_core.host.text import encode_prompts

    clip, told = random_model.clip, {}
    given = clip.cond_stage_model.set_clip_options

    def noted(options):
        told.update(options)
        given(options)

    monkeypatch.setattr(clip.cond_stage_model, "set_clip_options", noted)
    with torch.no_grad():
        encode_prompts(clip, ["a photo of a dog"], pooled=False)
    assert told["execution_device"] == clip.patcher.load_device


def test_everything_else_is_unloaded_before_a_training(comfy, whole, random_model, monkeypatch):
    asked = {}
    monkeypatch.setattr(comfy.model_management, "get_total_memory", lambda device: 1234)
    monkeypatch.setattr(
        comfy.model_management, "load_models_gpu", lambda models, **how: asked.update(how, models=models)
    )
    whole.load_whole(random_model.model, random_model.clip)
    assert asked["memory_required"] == 1234 and asked["force_full_load"]
    assert asked["models"] == [random_model.clip.patcher, random_model.model]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="of a GPU's memory")
def test_a_gpu_holds_weights_once(backend_module):
    from ComfyUI_CNS.cns_core.host.frozen_weights import frozen_weights

    layer = torch.nn.Linear(1024, 1024, bias=False, dtype=torch.float16, device="cuda")
    weight, values, size = layer.weight, layer.weight.detach().cpu().clone(), 2 * 1024**2
    before = torch.cuda.memory_allocated()
    with frozen_weights({layer: torch.bfloat16}):
        assert layer.weight.device.type == "cuda" and layer.weight.dtype == torch.bfloat16
        assert torch.cuda.memory_allocated() - before < size / 2 and weight.device.type == "cpu"
    assert layer.weight is weight and weight.device.type == "cuda" and torch.equal(weight.cpu(), values)


def test_weights_that_only_their_loader_can_read_are_named(whole):
    from ComfyUI_CNS.cns_core.host.weights import Weights

    class Packed(torch.Tensor):
        def dequantize(self):
            raise NotImplementedError

    packed = torch.ones(3).as_subclass(Packed)
    patcher = SimpleNamespace(get_key_patches=lambda prefix: {"w": [(packed, None)]})
    with pytest.raises(ValueError, match=r"held as Packed, as some custom loaders do \(GGUF"):
        Weights(patcher).computed("w")


def test_a_vae_that_makes_no_numbers_is_told_before_training(random_model, pack, comfy):
    from ComfyUI_CNS.cns_core.host.latents import encode_pixels
    from ComfyUI_CNS.cns_core.host.types import Loaded

    vae = SimpleNamespace(encode=lambda pixels: torch.full((1, 4, 8, 8), float("nan")))
    with pytest.raises(ValueError, match=r"not finite.*--fp32-vae"):
        encode_pixels(Loaded(random_model.model, random_model.clip, vae), torch.zeros(1, 64, 64, 3))


def test_room_is_made_for_what_the_host_does_not_manage(comfy, pack, monkeypatch):
    from ComfyUI_CNS.cns_core.host.room import make_room

    asked = []
    monkeypatch.setattr(comfy.model_management, "free_memory", lambda size, device: asked.append(size))
    make_room(10**9)
    assert asked[0] > 1.2 * 10**9
