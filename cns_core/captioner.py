"""What an image-to-text model of `transformers` says about a picture.

Two ways of asking, told apart by what comes with the model: one that talks (it has a chat template) is asked
in words, any other (BLIP, GIT, an encoder and a decoder) is given the picture alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .model_folder import MakeRoom, bytes_of, check_weights, is_hugging_face_id, model_config, no_room

QUESTION = "Describe this picture in one short sentence."
_FILES = "config.json, model.safetensors, tokenizer and preprocessor files"
# Weights that no caption depends on, or that are made anew: checkpoints often lack them.
_SPARE = ("pooler", "position_ids", "masked_bias")
_BEAMS = 3  # of models that are given the picture alone; these are small, and stammer with one
_NO_REPEAT = 3  # words
_ONLY_PICTURE = "It was given the picture alone; some models need an instruction besides: write one."

OnToken = Callable[[], None]


def _go_on() -> None:
    """Never stops."""


class Captioner:
    """An image-to-text model with what prepares its inputs. Made by `Captioner.load`, let go by `close`."""

    def __init__(self, source: str, model: Any, processor: Any, pictures: Any, tokenizer: Any) -> None:
        """
        processor: takes pictures and words together, or None; pictures: prepares pictures alone.
        """
        self.source = source
        self.model, self.processor, self.pictures, self.tokenizer = model, processor, pictures, tokenizer

    @classmethod
    def load(
        cls,
        source: str,
        device: torch.device | str,
        cache_dir: str | None = None,
        make_room: MakeRoom = no_room,
    ) -> Captioner:
        """Load a folder of an image-to-text model, or a Hugging Face id (downloaded to `cache_dir` once).

        make_room: is told how many bytes are about to be moved to the device.

        Raises:
            ValueError: the folder is missing, holds another kind of model, one that brings its own code, or
                lacks weights; or the download fails.
        """
        from transformers import AutoModelForImageTextToText

        # Without pickles, and without code that a folder or a page may bring along.
        where: dict[str, Any] = {"cache_dir": cache_dir, "trust_remote_code": False}
        if Path(source).is_dir():
            where = {"local_files_only": True, "trust_remote_code": False}
            model_config(Path(source), "image-to-text", _FILES)
            check_weights(Path(source))
        elif not is_hugging_face_id(source):
            raise ValueError(
                f"No caption model folder at {source!r}. Give a folder with {_FILES}, or a Hugging Face id "
                "such as Salesforce/blip-image-captioning-base."
            )
        try:
            weights = {"output_loading_info": True, "use_safetensors": True, "torch_dtype": "auto"}
            model, info = AutoModelForImageTextToText.from_pretrained(source, **weights, **where)
            parts = _parts(source, where)
        except Exception as error:  # of what a file says wrongly, transformers raises anything
            raise ValueError(
                f"Could not load the caption model {source!r}: {type(error).__name__}: {error}\nLooked for a "
                "folder of that name below models/ and, failing that, for a Hugging Face model. Expected an "
                "image-to-text model that transformers knows without code of its own, with safetensors "
                "weights. Check the name and the connection, or download the model's files "
                f"({_FILES}) and give their folder."
            ) from error
        missing = sorted(key for key in info["missing_keys"] if not any(part in key for part in _SPARE))
        if missing:
            raise ValueError(
                f"The caption model {source!r} lacks {len(missing)} weights, such as {missing[0]!r}; "
                "transformers fills them at random. Use a whole image-to-text model."
            )
        if torch.device(device).type == "cpu":
            model = model.float()  # half precision is slow there, or not there at all
        make_room(bytes_of(model))
        return cls(source, model.eval().to(device), *parts)

    def close(self) -> None:
        """Let go of the model, so that its memory can be used."""
        self.model = self.processor = self.pictures = self.tokenizer = None

    def sentence(
        self, pixels: Tensor, most_tokens: int, instruction: str = "", on_token: OnToken = _go_on
    ) -> str:
        """What the model says about one picture (H, W, 3), float in [0, 1]; the same each time.

        instruction: what it is asked; without one, a model that talks is asked QUESTION and any other
            nothing.
        on_token: is called before each token and may raise to stop.

        Raises:
            ValueError: the model takes no picture in this way.
        """
        picture = Image.fromarray(pixels.mul(255).round().byte().cpu().numpy())
        talks = getattr(self.processor, "chat_template", None) is not None

        def stop(ids: Tensor, scores: Any, **_: Any) -> Tensor:
            on_token()
            return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

        settings: dict[str, Any] = {"max_new_tokens": most_tokens, "do_sample": False}
        if not talks:
            settings |= {"num_beams": _BEAMS, "no_repeat_ngram_size": _NO_REPEAT}
        try:
            inputs = self._on_device(self._inputs(picture, instruction))
            with torch.no_grad():
                ids = self.model.generate(**inputs, **settings, stopping_criteria=[stop])
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            asked = "" if talks or instruction else f" {_ONLY_PICTURE}"
            raise ValueError(
                f"The caption model {self.source!r} cannot caption pictures in this way "
                f"({type(error).__name__}: {error}).{asked}"
            ) from error
        asked_ids = inputs.get("input_ids")
        if asked_ids is not None and torch.equal(ids[:, : asked_ids.shape[1]], asked_ids):
            ids = ids[:, asked_ids.shape[1] :]  # models of one stack repeat what they were asked
        return str(self.tokenizer.decode(ids[0], skip_special_tokens=True)).strip()

    def _inputs(self, picture: Image.Image, instruction: str) -> dict[str, Any]:
        if self.processor is not None and getattr(self.processor, "chat_template", None) is not None:
            content = [
                {"type": "image", "image": picture},
                {"type": "text", "text": instruction or QUESTION},
            ]
            asked = self.processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
            return dict(asked)
        if not instruction:
            return dict(self.pictures(images=picture, return_tensors="pt"))
        if self.processor is None:
            raise ValueError("it takes pictures alone, and an instruction was given; leave that empty")
        return dict(self.processor(images=picture, text=instruction, return_tensors="pt"))

    def _on_device(self, inputs: dict[str, Any]) -> dict[str, Any]:
        known = inspect.signature(self.model.forward).parameters
        if "token_type_ids" not in known:  # some tokenizers make them for models that have no use for them
            inputs.pop("token_type_ids", None)
        return {name: self._moved(value) for name, value in inputs.items()}

    def _moved(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(self.model.device, self.model.dtype if value.is_floating_point() else value.dtype)


def _parts(source: str, where: dict[str, Any]) -> tuple[Any, Any, Any]:
    """What takes pictures and words together (None where there is nothing of the kind), what prepares
    pictures alone, and the tokenizer.
    """
    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

    processor = AutoProcessor.from_pretrained(source, **where)
    pictures = getattr(processor, "image_processor", None)
    tokenizer = getattr(processor, "tokenizer", None)
    if pictures is None or tokenizer is None:  # of an encoder and a decoder, each has its own
        return (
            None,
            AutoImageProcessor.from_pretrained(source, **where),
            AutoTokenizer.from_pretrained(source, **where),
        )
    return processor, pictures, tokenizer
