"""The text encoder in training: computed in bfloat16,
features and gradients close to float32's, and no trace afterwards.
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

PROMPTS = ["a photo of <x> in the snow", "<x>"]


def encoded(module: ModuleType, loaded: Any, precision: Any) -> tuple[Tensor, Tensor]:
    """Features computed in this precision, and the gradient of a random reading of them in the token."""
    vector = torch.randn(1, 768, generator=torch.Generator().manual_seed(1)) * 0.02
    with module.training_mode():
        backend = module.HostBackend(loaded.model, loaded.clip, "<x>", {"clip_l": vector}, {}, precision)
        token = vector.clone().requires_grad_()
        with backend.weights_patched({}):
            features = backend.encode(PROMPTS, {"clip_l": token}).cross
            reading = torch.randn(features.shape, generator=torch.Generator().manual_seed(2))
            (features * reading).sum().backward()
    assert features.dtype == torch.float32 and token.grad is not None
    return features.detach(), token.grad


@pytest.fixture(scope="module")
def bfloat16(float32: Any) -> Any:
    """The text encoder as training computes it on a machine that is fast in bfloat16."""
    return replace(float32, text=torch.bfloat16)


def test_features_and_gradients_stay_close_to_float32s(
    backend_module: ModuleType, random_model: Any, float32: Any, bfloat16: Any
) -> None:
    exact, exact_gradient = encoded(backend_module, random_model, float32)
    features, gradient = encoded(backend_module, random_model, bfloat16)
    off = float((features - exact).norm() / exact.norm())
    rounded = float((exact.bfloat16().float() - exact).norm() / exact.norm())
    assert 0.1 * rounded < off < 5 * rounded, (off, rounded)
    assert float(cosine_similarity(gradient, exact_gradient)) > 0.999


def test_in_float32_they_are_what_the_host_draws_with(
    backend_module: ModuleType, random_model: Any, float32: Any
) -> None:
    clip = random_model.clip
    prompt = "a photo of a dog"
    drawn = clip.encode_from_tokens(clip.tokenize(prompt))
    with backend_module.training_mode(), torch.no_grad():
        vectors = {"clip_l": torch.zeros(1, 768)}
        backend = backend_module.HostBackend(random_model.model, clip, "<x>", vectors, {}, float32)
        with backend.weights_patched({}):
            assert torch.equal(backend.encode([prompt], None).cross, drawn.float())


def test_no_hook_is_left_and_drawing_is_as_before(
    backend_module: ModuleType, random_model: Any, bfloat16: Any
) -> None:
    clip = random_model.clip
    before = clip.encode_from_tokens(clip.tokenize("a photo of a dog"))
    encoded(backend_module, random_model, bfloat16)
    assert not any(module._forward_pre_hooks for module in clip.cond_stage_model.modules())
    assert torch.equal(clip.encode_from_tokens(clip.tokenize("a photo of a dog")), before)


def test_bfloat16_only_where_both_devices_are_fast_in_it(
    backend_module: ModuleType, float32: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ComfyUI_CNS.cns_core.host.precision import Precision, fastest_precision

    cpu, mps = torch.device("cpu"), torch.device("mps")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert fastest_precision(cpu, cpu) == Precision(torch.bfloat16, torch.bfloat16)
    assert fastest_precision(cpu, mps) == Precision(torch.bfloat16, torch.float32)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    assert fastest_precision(cpu, cpu) == float32
