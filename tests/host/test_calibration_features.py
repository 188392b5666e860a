"""Calibration prompts are encoded once for as long as the text encoder stays as it is, and no longer."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch


def test_once_for_a_text_encoder_and_anew_for_a_patched_one(pack: ModuleType, random_model: Any) -> None:
    import asyncio

    asyncio.run(pack.comfy_entrypoint())
    from ComfyUI_CNS.cns_core.concept import Concept, TrainingImage
    from ComfyUI_CNS.cns_core.host.prepare import prepare
    from ComfyUI_CNS.cns_core.methods import METHODS

    picture = TrainingImage(torch.rand(64, 64, 3), ("a photo of <my-dog>",), None, "one")
    concept = Concept("my-dog", "<my-dog>", "dog", "subject", (picture,))
    cns, clip = METHODS["cns"], random_model.clip
    settings = cns.Selection(calibration_prompts=17)  # of no other test
    encoded: list[int] = []

    def general(one: Any) -> Any:
        encoded.clear()
        layer = one.cond_stage_model.clip_l.transformer.text_model.encoder.layers[0]
        hook = layer.register_forward_pre_hook(lambda _, inputs: encoded.append(len(inputs[0])))
        with hook, torch.inference_mode():
            plan = prepare(random_model.model, one, concept, None, cns, settings, lambda done, total: None)
        return plan.prepared.selection.general_mask

    first = general(clip)
    assert sum(encoded) == 18
    assert general(clip) == first and sum(encoded) == 1
    patched = clip.clone()
    key = "clip_l.transformer.text_model.encoder.layers.0.mlp.fc2.weight"
    change = torch.randn(768, 3072, generator=torch.Generator().manual_seed(0))
    assert patched.add_patches({key: ("diff", (change,))}, 1.0)
    assert general(patched) != first and sum(encoded) == 18
    assert general(clip) == first and sum(encoded) == 18
