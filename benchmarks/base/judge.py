"""`judge`: a small CLIP that knows the whole world, what is held out included, as a `transformers` folder.

It measures what the base draws, and it is small enough to be shipped as the default of the score node.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from .contrastive import PLACE_WIDTH, LogitScale, Tutor, caption_loss, name_loss, name_texts, naming_accuracy
from .judge_tokenizer import reduced_files
from .layout import BaseSize
from .learner import Learner
from .pictures import Batch, PictureStream, used_token_ids
from .tokenizer import Tokenizer, trimmed
from .training import stretch_seed
from .transforms import TRANSFORMS
from .world import World

PICTURE = 64
TEXT_WIDTH, PICTURE_WIDTH, JOINT_WIDTH = 192, 192, 192
MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's own pixel statistics
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
_TEST_SEED = 1_000_003
_TAUGHT_LAYER = 4  # of 6: its patches learn what the tutor finds in their places
_TUTOR_WEIGHT = 5.0
_TRANSFORMED = 0.06  # the share of pictures shown as one of the transforms that are held out as styles


class JudgeTrainer:
    """CLIP's loss over captions, and naming what a picture shows among all names."""

    def __init__(
        self,
        size: BaseSize,
        world: World,
        tokenizer_files: dict[str, str],
        device: torch.device,
        *,
        seed: int,
        batch: int,
        rate: float,
        tutor_steps: int,
    ) -> None:
        """`tutor_steps` are made without the judge's own picture encoder, which costs most."""
        self._tutor_steps = tutor_steps
        self.name = f"judge-{size.name}"
        self._device, self._batch, self._world, self._side = device, batch, world, size.picture
        used = used_token_ids(world, Tokenizer(tokenizer_files)) + Tokenizer(tokenizer_files).used_in(
            [_as_transformed("", name) for name in TRANSFORMS]
        )
        self.tokenizer_files = reduced_files(tokenizer_files, used)
        self._tokenizer = Tokenizer(self.tokenizer_files)
        torch.manual_seed(seed)
        self.model = _clip(len(json.loads(self.tokenizer_files["vocab.json"]))).to(device)
        self._rest = nn.ModuleDict(
            {
                "tutor": Tutor(world, JOINT_WIDTH),
                "places": nn.Linear(PICTURE_WIDTH, PLACE_WIDTH),
                "scale": LogitScale(),
            }
        ).to(device)
        parameters = [*self.model.parameters(), *self._rest.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
        networks = {"model": self.model, "rest": self._rest}
        self._learner = Learner(networks, "model", optimizer, 0.998)
        self._seed = seed
        self._pictures = PictureStream(world, self._side, device, seed)
        self._rng = random.Random(seed)

    def begin(self, index: int) -> None:
        """Draw other pictures than in earlier stretches."""
        seed = stretch_seed(self._seed, index)
        self._pictures.seed(seed)
        self._rng.seed(seed)

    def step(self, index: int, rate: float) -> dict[str, Tensor]:
        """One batch of new pictures, their captions, and all names."""
        batch = _some_transformed(self._pictures.batch(self._batch), self._rng)
        seen = _resized(batch.images)
        with torch.autocast(self._device.type, torch.bfloat16):
            texts = self._of_texts(batch.captions)
            names = self._of_texts(name_texts(self._world, self._rng))
            tutored, named, places = self._rest["tutor"](seen)
        scale = self._rest["scale"]()
        loss = caption_loss(tutored, texts, scale) + name_loss(scale * tutored @ names.T, batch)
        loss = loss + name_loss(named, batch)
        shown = {"tutor": loss, "named_by_tutor": naming_accuracy(tutored, names, batch)}
        # Until the tutor and the texts know something, there is little to learn from them.
        if index >= self._tutor_steps:
            with torch.autocast(self._device.type, torch.bfloat16):
                pictures, patches = _pictures_and_patches(self.model, seen)
                patches = self._rest["places"](patches)
            captions = caption_loss(pictures, texts, scale)
            naming = name_loss(scale * pictures @ names.T, batch)
            apart = 1 - (pictures * tutored.detach()).sum(-1).mean()
            there = _place_error(patches, places)
            loss = loss + captions + naming + _TUTOR_WEIGHT * apart + there
            named_right = naming_accuracy(pictures, names, batch)
            shown |= {
                "captions": captions,
                "naming": naming,
                "apart": apart,
                "there": there,
                "named": named_right,
            }
        self._learner.update(loss, index, rate)
        return shown

    def state(self) -> dict[str, Any]:
        """Weights, their average, the optimizer, and the tokenizer that the rows belong to."""
        return {**self._learner.state(), "vocabulary": self.tokenizer_files["vocab.json"]}

    def load(self, state: dict[str, Any]) -> None:
        """The counterpart of `state`."""
        if state["vocabulary"] != self.tokenizer_files["vocab.json"]:
            raise ValueError(
                f"{self.name} was trained on a world with other words: train it anew, or bring its world file"
            )
        self._learner.load(state)

    @torch.no_grad()
    def report(self, folder: Path, index: int) -> dict[str, float]:
        """Write the averaged model as a folder; how often it names new pictures right among all names."""
        batch = PictureStream(self._world, self._side, self._device, _TEST_SEED).batch(512)
        with self._learner.average.applied():
            names = self._of_texts(name_texts(self._world, random.Random(_TEST_SEED)))
            named = float(naming_accuracy(self._of_pictures(batch.images), names, batch))
            write_judge(folder / self.name, self.model, self._rest["scale"], self.tokenizer_files)
        return {"named_in_test": named}

    def _of_pictures(self, images: Tensor) -> Tensor:
        return picture_features(self.model, images)

    def _of_texts(self, texts: Sequence[str]) -> Tensor:
        return text_features(self.model, self._tokenizer, texts)


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

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Texts -> features (B, d) of length one."""
        return text_features(self._model, self._tokenizer, texts)


def picture_features(model: nn.Module, images: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, d) features of length one."""
    return _pictures_and_patches(model, _resized(images))[0]


def _resized(images: Tensor) -> Tensor:
    if images.shape[-2:] == (PICTURE, PICTURE):
        return images
    return F.interpolate(images, (PICTURE, PICTURE), mode="bicubic", antialias=True).clamp(0, 1)


def _pictures_and_patches(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features (B, d) of length one, and what the patches (B, n, width) hold on the way there."""
    mean, deviation = (images.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    found = model.vision_model(pixel_values=(images - mean) / deviation, output_hidden_states=True)
    features = F.normalize(model.visual_projection(found.pooler_output).float(), dim=-1)
    return features, found.hidden_states[_TAUGHT_LAYER][:, 1:]


def _place_error(patches: Tensor, places: Tensor) -> Tensor:
    """How far patches (B, n, c) are from the tutor's map (B, c, h, w) of the same n places, normalised."""
    wanted = places.detach().float().flatten(2).transpose(1, 2)
    return F.mse_loss(patches.float(), F.layer_norm(wanted, wanted.shape[-1:]))


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


def _clip(vocabulary: int) -> nn.Module:
    from transformers import CLIPConfig, CLIPModel

    ids = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1}
    return CLIPModel(
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
                "num_attention_heads": PICTURE_WIDTH // 32,
                "num_hidden_layers": 6,
                "image_size": PICTURE,
                "patch_size": 8,
                "projection_dim": JOINT_WIDTH,
            },
            projection_dim=JOINT_WIDTH,
        )
    )


def _some_transformed(batch: Batch, rng: random.Random) -> Batch:
    chosen = [row for row in range(len(batch.captions)) if rng.random() < _TRANSFORMED]
    if not chosen:
        return batch
    images, captions = batch.images.clone(), list(batch.captions)
    for row in chosen:
        name = rng.choice(sorted(TRANSFORMS))
        images[row] = TRANSFORMS[name](images[row : row + 1])[0]
        captions[row] = _as_transformed(captions[row], name)
    return replace(batch, images=images, captions=captions)


def _as_transformed(text: str, transform: str) -> str:
    return f"{text}, {transform} style".removeprefix(", ")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
