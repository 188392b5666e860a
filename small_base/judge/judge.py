"""The judge: a small CLIP in the form of a `transformers` folder, which the score node reads too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from ..training.contrastive import LogitScale
from ..training.tokenizer import Tokenizer, trimmed
from .near_attention import look_around

PICTURE = 64
TEXT_WIDTH, PICTURE_WIDTH, JOINT_WIDTH = 192, 192, 192
MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's own pixel statistics
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
WINDOW = 0.6  # of the sides, of a part of a picture that is looked at as a picture of its own
_WINDOWS = 3  # from edge to edge, in either direction
_TAUGHT_LAYER = 4  # of 6: its patches learn what the tutor finds in their places


class Judge:
    """A trained judge, read from its folder."""

    def __init__(self, folder: Path) -> None:
        from transformers import CLIPModel

        if not (folder / "model.safetensors").is_file():
            raise FileNotFoundError(f"{folder} holds no judge: run `judge` first, or copy the folder there")
        self._model = CLIPModel.from_pretrained(folder, local_files_only=True).float().eval()
        files = {name: (folder / name).read_text(encoding="utf-8") for name in ("vocab.json", "merges.txt")}
        self._tokenizer = Tokenizer(files)

    @torch.no_grad()
    def pictures(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> features (B, d) of length one."""
        return torch.cat([picture_features(self._model, part) for part in images.split(64)])

    def pictures_and_parts(self, images: Tensor) -> Tensor:
        """Features of the whole pictures and of nine windows in each: (10, B, d).

        Of two things in one picture a single feature tells little.
        """
        steps = [step / (_WINDOWS - 1) for step in range(_WINDOWS)]
        parts = (window(images, across, down) for down in steps for across in steps)
        return torch.stack([self.pictures(images), *map(self.pictures, parts)])

    def sharpness(self) -> float:
        """What similarities are multiplied with before a softmax."""
        return float(self._model.logit_scale.detach().exp())

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Texts -> features (B, d) of length one."""
        return text_features(self._model, self._tokenizer, texts)


def picture_features(model: nn.Module, images: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, d) features of length one."""
    return pictures_and_patches(model, resized(images))[0]


def resized(images: Tensor) -> Tensor:
    """To the side that the judge looks at."""
    if images.shape[-2:] == (PICTURE, PICTURE):
        return images
    return F.interpolate(images, (PICTURE, PICTURE), mode="bicubic", antialias=True).clamp(0, 1)


def window(images: Tensor, across: float, down: float) -> Tensor:
    """A `WINDOW` of pictures (B, 3, H, W), enlarged to the whole side: 0 is at the left or top edge, 1 at the
    right or bottom one.
    """
    height, width = images.shape[-2:]
    rows, columns = round(WINDOW * height), round(WINDOW * width)
    top, left = round(down * (height - rows)), round(across * (width - columns))
    part = images[..., top : top + rows, left : left + columns]
    return F.interpolate(part, (height, width), mode="bilinear", align_corners=False)


def pictures_and_patches(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features (B, d) of length one, and what the patches (B, n, width) hold on the way there."""
    mean, deviation = (images.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    found = model.vision_model(pixel_values=(images - mean) / deviation, output_hidden_states=True)
    features = F.normalize(model.visual_projection(found.pooler_output).float(), dim=-1)
    return features, found.hidden_states[_TAUGHT_LAYER][:, 1:]


def text_features(model: nn.Module, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """Texts -> (B, d) features of length one."""
    ids = trimmed(tokenizer(texts), tokenizer.end).to(model.text_projection.weight.device)
    pooled = model.text_model(input_ids=ids).pooler_output
    return F.normalize(model.text_projection(pooled).float(), dim=-1)


def write_judge(folder: Path, model: nn.Module, scale: LogitScale, tokenizer_files: dict[str, str]) -> None:
    """A folder that `transformers` and the score node load: fp16 weights, configuration, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        model.logit_scale.copy_(scale().log())
    state = {name: tensor.detach().half().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(folder)
    for name, text in tokenizer_files.items():
        (folder / name).write_text(text, encoding="utf-8")
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
            "model_max_length": 77,
        },
    )
    _write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "crop_size": PICTURE,
            "size": PICTURE,
            "do_center_crop": True,
            "do_normalize": True,
            "do_resize": True,
            "image_mean": MEAN,
            "image_std": DEVIATION,
        },
    )


def new_judge(vocabulary: int) -> nn.Module:
    """An untrained `CLIPModel` for a tokenizer of so many tokens."""
    from transformers import CLIPConfig, CLIPModel

    ids = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1}
    model = CLIPModel(
        CLIPConfig(
            text_config={
                "vocab_size": vocabulary,
                "hidden_size": TEXT_WIDTH,
                "intermediate_size": 4 * TEXT_WIDTH,
                "num_attention_heads": TEXT_WIDTH // 32,
                "num_hidden_layers": 2,
                "projection_dim": JOINT_WIDTH,
                **ids,
            },
            vision_config={
                "hidden_size": PICTURE_WIDTH,
                "intermediate_size": 4 * PICTURE_WIDTH,
                "num_attention_heads": PICTURE_WIDTH // 16,
                "num_hidden_layers": 6,
                "image_size": PICTURE,
                "patch_size": 8,
                "projection_dim": JOINT_WIDTH,
            },
            projection_dim=JOINT_WIDTH,
        )
    )
    look_around(model.vision_model)
    return model


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
