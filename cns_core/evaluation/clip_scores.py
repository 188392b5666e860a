"""CLIP-I and CLIP-T: how near generated pictures are to a concept's photos and to their prompt.

CLIP-I is the mean cosine between every generated and every reference picture, CLIP-T the cosine between
picture and prompt with each learned token replaced by its class word. The paper prints 100 x cosine and
100 x 2.5 x cosine. A full CLIP model is loaded: the text encoder of a checkpoint lacks the projection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model_folder import MakeRoom, bytes_of, check_weights, is_hugging_face_id, model_config, no_room
from ..prompt_tokens import replaced, unknown_tokens
from ..values import shown

Images = Tensor | Sequence[Tensor]
"""Float pictures in [0, 1]: one (B, H, W, 3) tensor, or several, also (H, W, 3), of differing size."""

OnPictures = Callable[[int], None]


def _nothing(done: int) -> None:
    """Shows no progress."""


OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
_FILES = "config.json, model.safetensors, tokenizer and preprocessor files"
_LONGEST = 4  # times the shorter side
MAX_PROMPT = 20_000  # characters
BATCH = 16  # pictures encoded at once; ViT-L/14 at 336 px then stays below 1 GB


@dataclass(frozen=True)
class ClipScores:
    """Means over all pictures; `best_*` keep each prompt's best one, as the paper does, which flatters."""

    clip_i: float | None  # None without reference pictures
    clip_t: float
    best_clip_i: float | None
    best_clip_t: float
    images: int
    prompts: int  # different ones

    def as_text(self) -> str:
        """A few lines for people: plain cosine first, the paper's scale in brackets, best of n apart."""
        lines = [f"{self.images} picture(s), {self.prompts} different prompt(s)"]
        if self.clip_i is None or self.best_clip_i is None:
            lines.append("CLIP-I: not measured, no reference pictures")
        else:
            lines.append(
                f"CLIP-I {self.clip_i:.4f} (paper's scale {100 * self.clip_i:.2f}); "
                f"best picture of each prompt {self.best_clip_i:.4f} ({100 * self.best_clip_i:.2f})"
            )
        lines.append(
            f"CLIP-T {self.clip_t:.4f} (paper's scale {250 * self.clip_t:.2f}); "
            f"best picture of each prompt {self.best_clip_t:.4f} ({250 * self.best_clip_t:.2f})"
        )
        return "\n".join(f"- {line}" for line in lines)


def replace_tokens(prompt: str, class_words: Mapping[str, str]) -> str:
    """Replace each learned token `<my-dog>` of `prompt`, in either case, by its class word; ValueError on an
    unknown token.
    """
    if unknown := unknown_tokens(prompt, class_words):
        known = ", ".join(sorted(class_words)) or "none"
        raise ValueError(
            f"The prompt names {', '.join(unknown)}, whose class word is not known (known tokens: {known}). "
            "Connect the concept or the memory that holds it, or write its class word in the prompt instead."
        )
    return replaced(prompt, class_words)


def preprocess(images: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(B, H, W, 3) in [0, 1] to CLIP's (B, 3, size, size): shorter side to `size`, centre crop, normalise."""
    if images.ndim != 4 or images.shape[-1] != 3 or not images.is_floating_point():
        raise ValueError(
            f"Pictures must be a float tensor (B, H, W, 3), got {images.dtype} {tuple(images.shape)}. "
            "Convert to RGB in [0, 1] first."
        )
    shorter = min(images.shape[1:3])
    # Of a strip only the middle is seen, and the whole of it would grow to gigabytes.
    longest = _LONGEST * shorter
    top, left = (max(0, (side - longest) // 2) for side in images.shape[1:3])
    images = images[:, top : top + longest, left : left + longest]
    pixels = images.float().permute(0, 3, 1, 2)  # (B, 3, H, W)
    height, width = pixels.shape[-2:]
    resized = (int(height * size / shorter), int(width * size / shorter))
    pixels = F.interpolate(pixels, resized, mode="bicubic", antialias=True, align_corners=False)
    pixels = pixels.clamp(0.0, 1.0)  # bicubic overshoots at edges; the 8-bit pictures CLIP knows cannot
    top, left = (resized[0] - size) // 2, (resized[1] - size) // 2
    pixels = pixels[:, :, top : top + size, left : left + size]
    return (pixels - pixels.new_tensor(mean).view(1, 3, 1, 1)) / pixels.new_tensor(std).view(1, 3, 1, 1)


def _best_per_prompt(values: Tensor, prompts: Sequence[str]) -> float:
    best: dict[str, float] = {}
    for value, prompt in zip(values.tolist(), prompts, strict=True):
        best[prompt] = max(value, best.get(prompt, value))
    return sum(best.values()) / len(best)


def _features(output: Any) -> Tensor:
    """Joint-space features scaled to length one: transformers 4 returns the tensor, 5 an object."""
    features = output if isinstance(output, Tensor) else output.pooler_output
    return F.normalize(features.float(), dim=-1)


class ClipScorer:
    """A CLIP model with its tokenizer and pixel statistics. Make one with `ClipScorer.load`."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        mean: Sequence[float] = OPENAI_MEAN,
        std: Sequence[float] = OPENAI_STD,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.mean, self.std = tuple(mean), tuple(std)
        self.image_size: int = model.config.vision_config.image_size
        self.max_tokens: int = model.config.text_config.max_position_embeddings

    @classmethod
    def load(
        cls,
        source: str,
        device: torch.device | str,
        cache_dir: str | None = None,
        make_room: MakeRoom = no_room,
    ) -> ClipScorer:
        """Load a `transformers` CLIPModel folder, or a Hugging Face id (downloaded to `cache_dir` once).

        make_room: is told how many bytes are about to be moved to the device.

        Raises ValueError when the folder is missing, holds another kind of model or lacks weights, or when
        the download fails.
        """
        from transformers import AutoTokenizer, CLIPModel

        # Without pickles, and without code that a folder or a page may bring along.
        where: dict[str, Any] = {"cache_dir": cache_dir, "trust_remote_code": False}
        if Path(source).is_dir():
            where = {"local_files_only": True, "trust_remote_code": False}
            _check_folder(Path(source))
        elif not is_hugging_face_id(source):
            raise ValueError(
                f"No CLIP model folder at {source!r}. Give a folder with config.json, model.safetensors and "
                "the tokenizer's files, or a Hugging Face id such as openai/clip-vit-base-patch32."
            )
        try:
            weights = {"output_loading_info": True, "use_safetensors": True}
            loaded: Any = CLIPModel.from_pretrained(source, **weights, **where)
            tokenizer = AutoTokenizer.from_pretrained(source, **where)
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(
                f"Could not load the CLIP model {source!r}: {error}\nLooked for a folder of that name and, "
                "failing that, for a Hugging Face model. Check the name and the connection, or download the "
                f"model's files ({_FILES}) and give their folder."
            ) from error
        model, info = loaded
        if missing := sorted(info["missing_keys"]):
            raise ValueError(
                f"The CLIP model {source!r} lacks {len(missing)} weights, such as {missing[0]!r}; "
                "transformers fills them at random. Use a full CLIPModel, text and vision with both "
                "projections."
            )
        model = model.eval().float()
        make_room(bytes_of(model))
        return cls(model.to(device), tokenizer, *_pixel_statistics(source, where))

    def encode_images(self, images: Images, on_progress: OnPictures = _nothing) -> Tensor:
        """Unit vectors (N, d), on the CPU, one for each picture.

        `on_progress(done)` is called with the number of pictures encoded so far, and may raise to stop.
        """
        parts = [images] if isinstance(images, Tensor) else list(images)
        parts = [part.unsqueeze(0) if part.ndim == 3 else part for part in parts]
        if not sum(len(part) for part in parts):
            raise ValueError("No pictures to score: got 0, expected at least one.")
        features: list[Tensor] = []
        for batch in (batch for part in parts if len(part) for batch in part.split(BATCH)):
            pixels = preprocess(batch.to(self.model.device), self.image_size, self.mean, self.std)
            with torch.no_grad():
                features.append(_features(self.model.get_image_features(pixel_values=pixels)).cpu())
            on_progress(sum(map(len, features)))
        return torch.cat(features)

    def sections(self, prompt: str) -> list[str]:
        """A prompt in as few parts as this CLIP model can read, cut between words; ValueError for one word
        that it cannot.
        """
        if len(prompt) > MAX_PROMPT:
            raise ValueError(
                f"The prompt has {len(prompt):,} characters, expected at most {MAX_PROMPT:,}: "
                f"{shown(prompt)}."
            )
        parts: list[str] = []
        for word in prompt.split() or [""]:
            longer = f"{parts[-1]} {word}" if parts else word
            if parts and self._length(longer) <= self.max_tokens:
                parts[-1] = longer
                continue
            if (length := self._length(word)) > self.max_tokens:
                raise ValueError(
                    f"One word of the prompt has {length} tokens with start and end, this CLIP model holds "
                    f"{self.max_tokens}: {word[:120]!r}. Put spaces between words."
                )
            parts.append(word)
        return parts

    def _length(self, text: str) -> int:
        return len(self.tokenizer(text, truncation=False)["input_ids"])

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors (len(prompts), d), on the CPU; of a prompt of several sections the direction of their
        mean.
        """
        sections = [self.sections(prompt) for prompt in prompts]
        encoded = self._encode_texts([part for parts in sections for part in parts])
        means = [own.mean(dim=0) for own in encoded.split([len(parts) for parts in sections])]
        return F.normalize(torch.stack(means), dim=-1)

    def _encode_texts(self, texts: Sequence[str]) -> Tensor:
        batch = self.tokenizer(list(texts), truncation=False, padding=True, return_tensors="pt")
        ids, mask = batch["input_ids"].to(self.model.device), batch["attention_mask"].to(self.model.device)
        with torch.no_grad():
            return _features(self.model.get_text_features(input_ids=ids, attention_mask=mask)).cpu()

    def clip_i(self, generated: Images, reference: Images) -> float:
        """Mean cosine between every generated and every reference picture."""
        return float((self.encode_images(generated) @ self.encode_images(reference).T).mean())

    def clip_t(self, generated: Images, prompts: str | Sequence[str]) -> float:
        """Mean cosine between picture and prompt: one prompt for all, or one for each picture."""
        features = self.encode_images(generated)
        return float(self._prompt_cosines(features, _one_each(prompts, len(features))).mean())

    def score(
        self,
        generated: Images,
        prompts: str | Sequence[str],
        references: Sequence[Images] = (),
        on_progress: OnPictures = _nothing,
    ) -> ClipScores:
        """CLIP-T, and CLIP-I as the mean over concepts: `references` holds each concept's pictures.

        `on_progress(done)`: see `encode_images`; over all of them.
        """
        done = 0

        def encoded(pictures: Images) -> Tensor:
            nonlocal done
            before = done
            found = self.encode_images(pictures, lambda count: on_progress(before + count))
            done += len(found)
            return found

        features = encoded(generated)
        each = _one_each(prompts, len(features))
        text = self._prompt_cosines(features, each)
        image: Tensor | None = None
        if references:
            per_concept = [(features @ encoded(pictures).T).mean(dim=1) for pictures in references]
            image = torch.stack(per_concept).mean(dim=0)  # (N,)
        return ClipScores(
            clip_i=None if image is None else float(image.mean()),
            clip_t=float(text.mean()),
            best_clip_i=None if image is None else _best_per_prompt(image, each),
            best_clip_t=_best_per_prompt(text, each),
            images=len(features),
            prompts=len(set(each)),
        )

    def _prompt_cosines(self, features: Tensor, prompts: Sequence[str]) -> Tensor:
        different = sorted(set(prompts))
        text = self.encode_prompts(different)[[different.index(prompt) for prompt in prompts]]  # (N, d)
        return (features * text).sum(dim=-1)


def _one_each(prompts: str | Sequence[str], count: int) -> list[str]:
    each = [prompts] * count if isinstance(prompts, str) else list(prompts)
    if len(each) == 1:
        each = each * count
    if len(each) != count:
        raise ValueError(f"Got {len(each)} prompts for {count} pictures. Give one prompt, or one a picture.")
    return each


def _check_folder(folder: Path) -> None:
    kind = model_config(folder, "CLIP", _FILES).get("model_type")
    if kind != "clip":
        raise ValueError(
            f"{str(folder)!r} holds a model of type {kind!r}, expected 'clip' (text and vision together). "
            "Stable Diffusion's text encoder alone cannot score; use e.g. openai/clip-vit-base-patch32."
        )
    check_weights(folder)


def _pixel_statistics(source: str, where: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation the model was trained with; OpenAI's where its folder does not tell."""
    from transformers.utils import cached_file

    for name in ("preprocessor_config.json", "processor_config.json"):  # transformers 5 writes the second
        if found := cached_file(source, name, _raise_exceptions_for_missing_entries=False, **where):
            values = json.loads(Path(found).read_text(encoding="utf-8"))
            values = values.get("image_processor", values)
            if "image_mean" in values and "image_std" in values:
                return values["image_mean"], values["image_std"]
    return OPENAI_MEAN, OPENAI_STD
