"""What training runs through: the host's weights, cast once, and the very same objects afterwards."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

PROMPT = "a photo of a dog"


def weights_of(model: Any, clip: Any) -> dict[str, torch.Tensor]:
    modules = {"unet": model.model.diffusion_model, "text": clip.cond_stage_model}
    return {f"{root} {name}": p for root, m in modules.items() for name, p in m.named_parameters()}


def test_weights_are_cast_once_and_come_back(backend_module: ModuleType, random_model: Any) -> None:
    model, clip = random_model.model, random_model.clip
    before = weights_of(model, clip)
    assert {p.dtype for name, p in before.items() if name.startswith("text")} >= {torch.float16}
    with backend_module.training_mode():
        backend = backend_module.HostBackend(model, clip, "<x>", {"clip_l": torch.zeros(1, 768)}, {})
        with backend.weights_patched({}):
            during = weights_of(model, clip)
            compute = backend.model.get_model_object("manual_cast_dtype") or backend.model.model_dtype()
    assert {p.dtype for name, p in during.items() if name.startswith("unet")} == {compute}
    text = {n: p.dtype for n, p in during.items() if n.startswith("text") and "embedding" not in n}
    of_linear = {dtype for name, dtype in text.items() if ".self_attn." in name or ".mlp." in name}
    assert of_linear == {compute} and {dtype for n, dtype in text.items() if "norm" in n} == {torch.float32}
    assert not any(p.is_inference() or p.requires_grad for p in during.values())
    after = weights_of(model, clip)
    assert all(after[name] is p for name, p in before.items())


def test_what_comes_out_is_what_the_host_would_compute(
    comfy: ModuleType, backend_module: ModuleType, random_model: Any
) -> None:
    """Against the same prediction with the weights as the host keeps them, cast by it at every call."""
    from comfy.ldm.modules.attention import attention_pytorch

    noised = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([500])
    with backend_module.training_mode(), torch.no_grad():
        vectors = {"clip_l": torch.zeros(1, 768)}
        backend = backend_module.HostBackend(random_model.model, random_model.clip, "<x>", vectors, {})
        with backend.weights_patched({}):
            text = backend.encode([PROMPT], None)
            cast_once = backend.predict(noised, t, text)
    model = random_model.model.clone()
    model.set_model_compute_dtype(backend.precision.unet)
    comfy.model_management.load_models_gpu([model])
    with torch.inference_mode():
        sigma = model.get_model_object("model_sampling").sigmas[t]
        wide = sigma.reshape(1, 1, 1, 1)
        attention = {
            "optimized_attention_override": lambda func, *args, **kwargs: attention_pytorch(*args, **kwargs)
        }
        denoised = model.model.apply_model(
            noised * (wide.square() + 1).sqrt(), sigma, c_crossattn=text.cross, transformer_options=attention
        )
        by_host = backend.levels.prediction(noised, denoised, wide)
    model.detach()
    assert torch.equal(cast_once, by_host)
