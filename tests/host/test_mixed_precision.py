"""The text encoder in training: computed in bfloat16, features and gradients close to float32's, and no trace
afterwards.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

PROMPTS = ["a photo of <x> in the snow", "<x>"]


def encoded(module: ModuleType, loaded: Any, dtype: torch.dtype, monkeypatch: Any) -> tuple[Tensor, Tensor]:
    """Features computed in this dtype, and the gradient of a random reading of them in the token."""
    monkeypatch.setattr(module, "text_dtype", lambda unet_dtype, device: dtype)
    vector = torch.randn(768, generator=torch.Generator().manual_seed(1)) * 0.02
    with module.training_mode():
        backend = module.HostBackend(loaded.model, loaded.clip, "<x>", {"clip_l": vector}, {})
        token = vector.clone().requires_grad_()
        with backend.hung({}):
            features = backend.encode(PROMPTS, {"clip_l": token}).cross
            reading = torch.randn(features.shape, generator=torch.Generator().manual_seed(2))
            (features * reading).sum().backward()
    assert features.dtype == torch.float32 and token.grad is not None
    return features.detach(), token.grad


def test_features_and_gradients_stay_close_to_float32s(
    backend_module: ModuleType, random_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, exact_gradient = encoded(backend_module, random_model, torch.float32, monkeypatch)
    features, gradient = encoded(backend_module, random_model, torch.bfloat16, monkeypatch)
    off = float((features - exact).norm() / exact.norm())
    rounded = float((exact.bfloat16().float() - exact).norm() / exact.norm())
    assert 0.1 * rounded < off < 5 * rounded, (off, rounded)
    assert float(cosine_similarity(gradient, exact_gradient, dim=0)) > 0.999


def test_in_float32_they_are_what_the_host_draws_with(
    backend_module: ModuleType, random_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = random_model.clip
    prompt = "a photo of a dog"
    drawn = clip.encode_from_tokens(clip.tokenize(prompt))
    monkeypatch.setattr(backend_module, "text_dtype", lambda unet_dtype, device: torch.float32)
    with backend_module.training_mode(), torch.no_grad():
        backend = backend_module.HostBackend(
            random_model.model, clip, "<x>", {"clip_l": torch.zeros(768)}, {}
        )
        with backend.hung({}):
            assert torch.equal(backend.encode([prompt], None).cross, drawn.float())


def test_no_hook_is_left_and_drawing_is_as_before(
    backend_module: ModuleType, random_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = random_model.clip
    before = clip.encode_from_tokens(clip.tokenize("a photo of a dog"))
    encoded(backend_module, random_model, torch.bfloat16, monkeypatch)
    assert not any(module._forward_pre_hooks for module in clip.cond_stage_model.modules())
    assert torch.equal(clip.encode_from_tokens(clip.tokenize("a photo of a dog")), before)


def test_bfloat16_only_where_the_unet_trains_in_it_and_the_device_has_it(
    backend_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cpu")
    monkeypatch.setattr(backend_module, "_is_at_home_in_bf16", lambda device: True)
    assert backend_module.text_dtype(torch.bfloat16, device) == torch.bfloat16
    assert backend_module.text_dtype(torch.float32, device) == torch.float32
    assert backend_module.text_dtype(torch.bfloat16, torch.device("mps")) == torch.float32
    monkeypatch.setattr(backend_module, "_is_at_home_in_bf16", lambda device: False)
    assert backend_module.text_dtype(torch.bfloat16, device) == torch.float32
