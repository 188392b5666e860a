"""Text encoder layers that add nothing are left out while selecting and training, and only then."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from devtools.random_checkpoint import SMALL_TEXT_OPTIONS

LAYER = "cond_stage_model.transformer.text_model.encoder.layers.1."
LAST_OF_ITS_BRANCHES = ("self_attn.out_proj.", "mlp.fc2.")
PROMPT = "a photo of a dog"


@pytest.fixture(scope="module")
def idle(comfy: ModuleType, small_checkpoint: Path) -> tuple[Any, Any]:
    """MODEL and CLIP whose second text layer is an exact identity."""
    state = load_file(small_checkpoint)
    for name in state:
        if name.startswith(tuple(LAYER + branch for branch in LAST_OF_ITS_BRANCHES)):
            state[name].zero_()
    with torch.inference_mode():
        model, clip, *_ = comfy.sd.load_state_dict_guess_config(
            state, output_vae=False, te_model_options=SMALL_TEXT_OPTIONS
        )
    return model, clip


def layers_of(clip: Any) -> torch.nn.ModuleList:
    return clip.cond_stage_model.clip_l.transformer.text_model.encoder.layers


def features_in_training(
    module: ModuleType, model: Any, clip: Any, precision: Any
) -> tuple[torch.Tensor, int]:
    with module.training_mode(), torch.no_grad():
        vectors = {"clip_l": torch.zeros(768)}
        backend = module.HostBackend(model, clip, "<x>", vectors, {}, precision)
        with backend.hung({}):
            return backend.encode([PROMPT], vectors).cross, len(layers_of(clip))


def test_what_comes_out_stays_the_same(
    backend_module: ModuleType, idle: tuple[Any, Any], float32: Any
) -> None:
    model, clip = idle
    untouched = clip.encode_from_tokens(clip.tokenize(PROMPT))
    features, run = features_in_training(backend_module, model, clip, float32)
    assert torch.equal(features, untouched.float())
    assert run == 1 and len(layers_of(clip)) == 2


def test_clip_skip_counts_every_layer(
    backend_module: ModuleType, idle: tuple[Any, Any], float32: Any
) -> None:
    model, clip = idle
    skipping = clip.clone()
    skipping.clip_layer(-2)
    untouched = skipping.encode_from_tokens(skipping.tokenize(PROMPT))
    features, run = features_in_training(backend_module, model, skipping, float32)
    assert torch.equal(features, untouched.float()) and run == 2
    # A clip skip that another clone left behind in the shared text encoder is none of this one's.
    assert features_in_training(backend_module, model, clip, float32)[1] == 1


def test_busy_layers_are_run(backend_module: ModuleType, random_model: Any, float32: Any) -> None:
    assert features_in_training(backend_module, random_model.model, random_model.clip, float32)[1] == 2


def test_selecting_leaves_them_out_and_puts_them_back(
    backend_module: ModuleType, idle: tuple[Any, Any]
) -> None:
    from ComfyUI_CNS.cns_core.concept import Concept, TrainingImage
    from ComfyUI_CNS.cns_core.host.select import select
    from ComfyUI_CNS.cns_core.settings import SelectionSettings

    model, clip = idle
    picture = TrainingImage(torch.rand(64, 64, 3), ("a photo of <my-dog>",), None, "one")
    concept = Concept("my-dog", "<my-dog>", "dog", "subject", (picture,))
    run = []
    settings = SelectionSettings(calibration_prompts=16)
    select(model, clip, concept, None, settings, lambda done, total: run.append(len(layers_of(clip))))
    assert run[-1] == 2 and len(run) > 2 and set(run[:-1]) == {1}
