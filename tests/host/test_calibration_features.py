"""Calibration prompts are encoded once for as long as the text encoder stays as it is, and no longer."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch


def test_once_for_a_text_encoder_and_anew_for_a_patched_one(
    pack: ModuleType, random_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    asyncio.run(pack.comfy_entrypoint())
    from ComfyUI_CNS.cns_core.concept import Concept, TrainingImage
    from ComfyUI_CNS.cns_core.host import select as module
    from ComfyUI_CNS.cns_core.settings import SelectionSettings

    encoded: list[int] = []
    encode = module.encode_prompts

    def counted(clip: Any, prompts: list[str], pooled: bool) -> Any:
        encoded.append(len(prompts))
        return encode(clip, prompts, pooled)

    monkeypatch.setattr(module, "encode_prompts", counted)
    picture = TrainingImage(torch.rand(64, 64, 3), ("a photo of <my-dog>",), None, "one")
    concept = Concept("my-dog", "<my-dog>", "dog", "subject", (picture,))
    settings = SelectionSettings(calibration_prompts=16)
    clip = random_model.clip

    def general(one: Any) -> Any:
        encoded.clear()
        with torch.inference_mode():
            chosen = module.select(random_model.model, one, concept, None, settings, lambda done, total: None)
        return chosen.selection.general_mask

    module._calibration.clear()
    first = general(clip)
    assert sum(encoded) == 17
    assert general(clip) == first and sum(encoded) == 1
    patched = clip.clone()
    key = "clip_l.transformer.text_model.encoder.layers.0.mlp.fc2.weight"
    change = torch.randn(768, 3072, generator=torch.Generator().manual_seed(0))
    assert patched.add_patches({key: ("diff", (change,))}, 1.0)
    assert general(patched) != first and sum(encoded) == 17
    assert general(clip) == first and sum(encoded) == 17
