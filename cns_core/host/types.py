"""What this package reads of the host's objects, which have no types of their own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Model(Protocol):
    """MODEL: `comfy.model_patcher.ModelPatcher`, one of the clones that share the modules in `model`."""

    model: Any
    model_options: dict[str, Any]
    patches: dict[str, list[tuple[Any, ...]]]
    patches_uuid: uuid.UUID
    object_patches: dict[str, Any]
    wrappers: dict[str, dict[str, list[Any]]]
    injections: dict[str, Any]
    weight_wrapper_patches: dict[str, list[Any]]
    load_device: torch.device

    def clone(self, *args: Any, **kwargs: Any) -> Model: ...
    def get_model_object(self, name: str) -> Any: ...
    def get_key_patches(self, filter_prefix: str) -> dict[str, list[Any]]: ...
    def add_patches(self, patches: Mapping[str, Any], strength_patch: float) -> Sequence[str]: ...
    def add_weight_wrapper(self, name: str, function: Any) -> None: ...
    def model_dtype(self) -> torch.dtype: ...
    def set_model_compute_dtype(self, dtype: torch.dtype) -> None: ...
    def model_size(self) -> int: ...
    def loaded_size(self) -> int: ...
    def detach(self) -> None: ...


class Clip(Protocol):
    """CLIP: `comfy.sd.CLIP`, text encoders with their tokenizers."""

    tokenizer: Any
    cond_stage_model: Any
    patcher: Any
    layer_idx: int | None

    def clone(self) -> Clip: ...
    def tokenize(self, text: str, return_word_ids: bool = False) -> dict[str, list[list[Any]]]: ...
    def encode_from_tokens_scheduled(self, tokens: Any) -> list[Any]: ...


class Vae(Protocol):
    """VAE: `comfy.sd.VAE`."""

    patcher: Any

    def encode(self, pixel_samples: Tensor) -> Tensor: ...
    def decode(self, samples_in: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Loaded:
    """What a checkpoint loader gives."""

    model: Model
    clip: Clip
    vae: Vae


# Told how many of how many things are done; may raise to stop.
OnProgress = Callable[[int, int], None]
