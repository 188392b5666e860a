"""ComfyUI's MODEL and CLIP as the `DiffusionBackend` the training loop drives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import comfy.ldm.modules.attention
import comfy.model_management as management
import torch
from torch import Tensor

from ..framing import Framing, Framings
from ..method import WeightFunction
from ..text_features import TextFeatures
from .frozen_weights import frozen_weights
from .mixed_precision import computing_in, inputs_cast, weight_dtypes
from .model import model_family, noise_levels
from .precision import Precision, fastest_precision
from .text import SplicedTokenizer, encode_prompts, with_tokens
from .training_memory import TrainingMemory
from .types import Clip, Model
from .weight_wrappers import weights_wrapped
from .whole_models import load_whole, whole_clip, whole_model


class HostBackend:
    """Wraps clones of MODEL and CLIP; the given objects,
    and the weights they share with the clones, are never changed.

    Create and use it inside `training_mode()`.
    """

    def __init__(
        self,
        model: Model,
        clip: Clip,
        token: str,
        token_vectors: Mapping[str, Tensor],
        known: Mapping[str, Any],
        precision: Precision | None = None,
    ) -> None:
        """token: the new one, with its starting vectors, or nothing; known: tokens of the memory, so that
        captions may mention them; precision: None computes in what is fastest on the models' devices.
        """
        self.levels = noise_levels(model)
        self._family = model_family(model)
        self.device = torch.device(model.load_device)
        self.token = token
        new = {token: dict(token_vectors)} if token else {}
        self.clip = with_tokens(whole_clip(clip), {**known, **new})
        self._text_device = torch.device(self.clip.patcher.load_device)
        self.precision = precision or fastest_precision(self.device, self._text_device)
        self.model = _computing_in(whole_model(model), self.precision.unet)
        self._spliced = {
            n: t for n, t in vars(self.clip.tokenizer).items() if isinstance(t, SplicedTokenizer)
        }
        self.memory = TrainingMemory(self.model.model.diffusion_model, self.device)
        self._loaded = ExitStack()
        self._constants: set[int] = set()  # storages of the text encoder's weights

    def encode(self, prompts: Sequence[str], token_vectors: Mapping[str, Tensor] | None) -> TextFeatures:
        if token_vectors is not None:
            for name, tokenizer in self._spliced.items():
                tokenizer.vectors[self.token] = token_vectors[name]
        with _mutation_safe(self._constants), computing_in(self.precision.text, self._text_device):
            features = encode_prompts(self.clip, prompts, pooled=self.model.model.adm_channels > 0)
        pooled = None if features.pooled is None else features.pooled.to(self.device)
        return TextFeatures(features.cross.to(self.device), pooled, features.is_word)

    def predict(
        self, z_t: Tensor, t: Tensor, features: TextFeatures, framings: Framings | None = None
    ) -> Tensor:
        def smaller(latents: Tensor) -> Tensor:
            rows = [0] * len(latents)
            text = features.rows(rows).detached()
            text.cross.requires_grad_(features.cross.requires_grad)
            return self._predicted(latents, t[rows], text, None)

        with self.memory.forward(z_t, smaller):
            return self._predicted(z_t, t, features, framings)

    def _predicted(self, z_t: Tensor, t: Tensor, features: TextFeatures, framings: Framings | None) -> Tensor:
        sampling = self.model.get_model_object("model_sampling")
        sigma = sampling.sigmas.to(z_t.device)[t]
        wide = sigma.reshape(-1, 1, 1, 1)
        x = z_t * (wide.square() + 1).sqrt()  # the host's variance-exploding form of the same noised latent
        conds: dict[str, Any] = {"c_crossattn": features.cross}
        vector = self._vector(z_t, features.pooled, framings)
        if vector is not None:
            conds["y"] = vector.to(z_t.device)
        options = {
            **self.model.model_options["transformer_options"],
            "optimized_attention_override": _pytorch_attention,
        }
        denoised = self.model.model.apply_model(x, sigma, transformer_options=options, **conds)
        return self.levels.prediction(z_t, denoised, wide)

    def _vector(self, z_t: Tensor, pooled: Tensor | None, framings: Framings | None) -> Tensor | None:
        """What SDXL reads beside the cross-attention `(B, 2816)`: the pooled text, and what each picture was
        cut from. None for models without.
        """
        height, width = (side * self._family.latent_factor for side in z_t.shape[2:])
        if framings is None or not self._family.told_sizes:
            framings = [None] * len(z_t)
        drawn = Framing((height, width))
        told = [framing or drawn for framing, _ in zip(framings, z_t, strict=True)]

        def encoded(framing: Framing, pooled: Tensor | None) -> Any:
            return self.model.model.encode_adm(
                pooled_output=pooled,
                height=framing.original[0],
                width=framing.original[1],
                crop_h=framing.crop[0],
                crop_w=framing.crop[1],
                target_height=height,
                target_width=width,
                device=z_t.device,
            )

        if pooled is None or len(set(told)) == 1:
            vector: Tensor | None = encoded(told[0], pooled)
            return vector
        # The host has one framing for all that it encodes at once.
        rows = zip(told, pooled.split(1), strict=True)
        return torch.cat([encoded(framing, of_row) for framing, of_row in rows])

    @contextmanager
    def weights_patched(self, functions: Mapping[str, WeightFunction]) -> Iterator[None]:
        try:
            with weights_wrapped(self.model, functions):
                try:
                    self._load()
                    yield
                finally:
                    self._loaded.close()
        finally:
            self.model.detach()  # undoes the compute dtype; the host loads its own clone again

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Hand the models back to the host for a moment (to draw),
        weights still patched, then load them again.
        """
        self._loaded.close()
        try:
            with torch.inference_mode():
                yield
        finally:
            self._load()

    def _load(self) -> None:
        load_whole(self.model, self.clip)
        encoder = self.clip.cond_stage_model
        dtypes = {self.model.model: self.precision.unet, **weight_dtypes(encoder, self.precision.text)}
        self._loaded.enter_context(frozen_weights(dtypes))
        self._loaded.enter_context(inputs_cast(encoder, self.precision.text))
        self._constants = {p.untyped_storage().data_ptr() for p in encoder.parameters()}


def _mutation_safe(constants: set[int]) -> Any:
    """Let autograd keep copies of activations: the text encoder adds to them in place,
    which a plain backward refuses.

    Weights, known by the addresses of their storages, are never changed and are kept as they are.
    """

    def pack(tensor: Tensor) -> Tensor:
        return tensor if tensor.untyped_storage().data_ptr() in constants else tensor.clone()

    return torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)


@contextmanager
def training_mode() -> Iterator[None]:
    """Autograd on, whatever mode the host runs nodes in; its own training flag set where it has one."""
    flag = getattr(management, "in_training", None)
    with torch.inference_mode(False), torch.enable_grad():
        try:
            if flag is not None:
                management.in_training = True
            yield
        finally:
            if flag is not None:
                management.in_training = flag


def _computing_in(model: Model, dtype: torch.dtype) -> Model:
    if (model.get_model_object("manual_cast_dtype") or model.model_dtype()) != dtype:
        model.set_model_compute_dtype(dtype)
    return model


def _pytorch_attention(func: Any, *args: Any, **kwargs: Any) -> Tensor:
    """Flash, sage and split attention have no (or a slow) backward; PyTorch's has."""
    attended: Tensor = comfy.ldm.modules.attention.attention_pytorch(*args, **kwargs)
    return attended
