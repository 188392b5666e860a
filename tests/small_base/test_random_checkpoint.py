"""The random checkpoint is an SD 1.5 to the host."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from random_checkpoint import SMALL_TEXT_OPTIONS, random_state_dict


def test_is_taken_for_sd15_with_nothing_missing(
    comfy: ModuleType, small_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), torch.inference_mode():
        model, clip, _, _ = comfy.sd.load_checkpoint_guess_config(
            str(small_checkpoint), te_model_options=SMALL_TEXT_OPTIONS
        )
    assert type(model.model.model_config).__name__ == "SD15"
    keys = [
        name for name in model.model.state_dict() if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    ]
    assert len(keys) == 14
    assert clip.cond_stage_model.clip_l.num_layers == 2
    # The host says what a file lacks or has too much. No SD 1.5 checkpoint has CLIP's text projection.
    complaints = [text for text in caplog.messages if "missing" in text or "unexpected" in text]
    assert all("text_projection" in text and "encoder" not in text for text in complaints), complaints


def test_vae_keeps_pictures_apart(random_model: Any) -> None:
    pictures = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    pictures[1] *= torch.linspace(0, 1, 64)[:, None, None]
    with torch.inference_mode():
        latents = random_model.vae.encode(pictures)
        again = random_model.vae.decode(latents)
    assert latents.shape == (2, 4, 8, 8)
    assert latents.isfinite().all() and (latents[0] - latents[1]).abs().mean() > 0.1
    assert again.shape == pictures.shape and again.std() > 0.01


def test_every_weight_is_initialised_and_decided_by_the_seed(comfy: ModuleType) -> None:
    one, same, other = (random_state_dict(seed, small=True) for seed in (1, 1, 2))
    assert one.keys() == other.keys() and all(torch.equal(one[name], same[name]) for name in one)
    assert all(tensor.dtype == torch.float16 and tensor.isfinite().all() for tensor in one.values())
    drawn = [name for name, tensor in one.items() if tensor.ndim > 1]
    assert drawn and all(one[name].std() > 0 and not torch.equal(one[name], other[name]) for name in drawn)
    assert all((one[name] == 1).all() for name in one if name.endswith("norm1.weight"))
