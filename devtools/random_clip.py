"""A tiny random CLIP model folder, so that CLIPScore runs without a download. Its figures mean nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from .errors import SetupError
from .paths import comfyui_directory

DEFAULT_SEED = 2024

# CLIP's own pixel statistics; the picture size is the least that still shows something.
_PREPROCESSOR = {
    "crop_size": 64,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "CLIPImageProcessor",
    "size": 64,
}
_TINY = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}


def write_random_clip(folder: Path, seed: int = DEFAULT_SEED) -> Path:
    """Write a `transformers` CLIPModel with both projections, its tokenizer and preprocessor; about 15 MB."""
    from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig(
        text_config={**_TINY, "projection_dim": 32, "eos_token_id": 49407, "bos_token_id": 49406},
        vision_config={**_TINY, "projection_dim": 32, "image_size": 64, "patch_size": 16},
        projection_dim=32,
    )
    with torch.random.fork_rng(devices=[]):  # transformers draws from the global generator
        torch.manual_seed(seed)
        model = CLIPModel(config)
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    _copy_tokenizer(folder)
    text = json.dumps(_PREPROCESSOR, indent=2)
    (folder / "preprocessor_config.json").write_text(text + "\n", encoding="utf-8")
    return folder


def _copy_tokenizer(folder: Path) -> None:
    """CLIP's tokenizer comes with ComfyUI."""
    source = comfyui_directory() / "comfy" / "sd1_tokenizer"
    if not source.is_dir():
        raise SetupError(
            f"{source} does not exist, and CLIP's tokenizer is taken from there. "
            "Set COMFYUI_DIR to a whole ComfyUI, or unset it."
        )
    for file in source.iterdir():
        shutil.copy2(file, folder / file.name)
