"""CLIP-L's text encoder of which only the first layers, and the rows of used words, are its own.

The other layers are exact identities and are only written out for a checkpoint (`full_text_state`). The other
words have rows that anyone can compute again (`untrained_rows`), so that a trained encoder is a small file.
Names are those of a checkpoint's part "cond_stage_model.transformer.text_model." without that prefix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCABULARY = 49408
POSITIONS = 77
WIDTH = 768
HEADS = 12
LAYERS = 12
TOKEN_TABLE = "embeddings.token_embedding.weight"

_BRANCH_GAIN = 0.03


class TextEncoder(nn.Module):
    """Token ids -> what the U-Net's cross-attention reads. Embeddings and layers are those of `transformers`.

    Args:
        layers_trained: how many of CLIP's 12 layers there are; the others change nothing.
        used_ids: the token ids whose rows are trained, in the order of the table's rows; distinct. All other
            ids have their untrained row, which no state dict holds. None: every row is trained.
    """

    def __init__(self, layers_trained: int = 1, used_ids: Sequence[int] | None = None) -> None:
        super().__init__()
        if not 0 <= layers_trained <= LAYERS:
            raise ValueError(f"layers_trained is {layers_trained}; CLIP-L has {LAYERS} layers")
        from transformers.models.clip.modeling_clip import CLIPEncoder, CLIPTextEmbeddings

        config = _config(layers_trained)
        self.embeddings = CLIPTextEmbeddings(config)
        self.embeddings.token_embedding = _TokenTable(used_ids)
        nn.init.normal_(self.embeddings.position_embedding.weight, std=0.01)
        self.encoder = CLIPEncoder(config)
        self.final_layer_norm = nn.LayerNorm(WIDTH)
        for layer in self.encoder.layers:
            _initialise(layer)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (B, n), n <= 77, start and end tokens included -> (B, n, 768) after the final norm."""
        if ids.shape[-1] > POSITIONS:
            raise ValueError(f"texts of {ids.shape[-1]} tokens; CLIP has {POSITIONS} positions: cut them")
        return self.from_embedded(self.embeddings(ids))

    def from_embedded(self, embedded: Tensor) -> Tensor:
        """What the embeddings give, (B, n, 768), positions included -> (B, n, 768) after the final norm."""
        states = self.encoder(embedded, is_causal=True).last_hidden_state
        return self.final_layer_norm(states)  # type: ignore[no-any-return]


def _config(layers: int) -> Any:
    """CLIP-L's; the table of words is replaced, so that it need not be large."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=1,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        max_position_embeddings=POSITIONS,
        hidden_act="quick_gelu",
        attn_implementation="sdpa",
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def _initialise(layer: nn.Module) -> None:
    """Start with branches about as loud as the words' embeddings: any louder would drown the words."""
    for linear in (module for module in layer.modules() if isinstance(module, nn.Linear)):
        ends_branch = linear in (layer.self_attn.out_proj, layer.mlp.fc2)
        nn.init.normal_(linear.weight, std=linear.in_features**-0.5 * (_BRANCH_GAIN if ends_branch else 1.0))
        nn.init.zeros_(linear.bias)


def token_rows(used_ids: Sequence[int], trained: Tensor) -> Tensor:
    """The whole token table (49408, 768): `trained` (n, 768) at `used_ids`, untrained rows elsewhere."""
    ids = _checked_ids(used_ids)
    if tuple(trained.shape) != (len(ids), WIDTH):
        raise ValueError(
            f"{len(ids)} used ids, but trained rows {tuple(trained.shape)}; give ({len(ids)}, {WIDTH})"
        )
    rows = untrained_rows().to(trained.dtype)
    rows[ids] = trained.detach().cpu()
    return rows


def untrained_rows() -> Tensor:
    """Words without a meaning yet: (49408, 768) float32, pseudo-random, uniform in +-1/32 (CLIP's size).

    Made of integers alone, so they are the same bits on every machine; fp16 holds them exactly.
    """
    ids = np.arange(VOCABULARY, dtype=np.uint32)[:, None]
    columns = np.arange(WIDTH, dtype=np.uint32)[None, :]
    # A 32-bit finaliser (two rounds of xor, shift and multiply); uint32 arrays wrap around without a warning.
    mixed = ids * np.uint32(WIDTH) + columns + np.uint32(0x9E3779B9)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        mixed ^= mixed >> np.uint32(shift)
        mixed *= np.uint32(factor)
    mixed ^= mixed >> np.uint32(16)
    eleven_bits = (mixed >> np.uint32(21)).astype(np.float32)
    return torch.from_numpy((eleven_bits - 1023.5) / 32768.0)


def full_text_state(text_state: Mapping[str, Tensor], used_ids: Sequence[int] | None) -> dict[str, Tensor]:
    """All of CLIP-L's tensors from a `TextEncoder`'s: whole token table, 12 layers; float32, on the CPU.

    Args:
        text_state: the encoder's state dict.
        used_ids: what the encoder was made with.
    """
    state = {name: tensor.detach().float().cpu() for name, tensor in text_state.items()}
    if used_ids is not None:
        state[TOKEN_TABLE] = token_rows(used_ids, state[TOKEN_TABLE])
    elif len(state[TOKEN_TABLE]) != VOCABULARY:
        raise ValueError(
            f"the token table has {len(state[TOKEN_TABLE])} rows, a whole one has {VOCABULARY}: "
            "give the used_ids that the encoder was made with"
        )
    for index in range(LAYERS):
        prefix = f"encoder.layers.{index}."
        if prefix + "mlp.fc1.weight" not in state:
            state |= {prefix + name: tensor for name, tensor in identity_layer().items()}
    return state


def identity_layer() -> dict[str, Tensor]:
    """A layer that adds exactly nothing: both branches end in zeros. Norms stay at one."""
    from transformers.models.clip.modeling_clip import CLIPEncoderLayer

    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in CLIPEncoderLayer(_config(1)).state_dict().items()}
    return {
        name: torch.ones(shape)
        if name.startswith("layer_norm") and name.endswith("weight")
        else torch.zeros(shape)
        for name, shape in shapes.items()
    }


class _TokenTable(nn.Module):
    """Rows by token id: trained ones where there are, untrained ones elsewhere."""

    def __init__(self, used_ids: Sequence[int] | None) -> None:
        super().__init__()
        untrained = untrained_rows()
        if used_ids is None:
            self.weight = nn.Parameter(untrained)
            self.row_of_id = None
            return
        ids = _checked_ids(used_ids)
        self.weight = nn.Parameter(untrained[ids].clone())
        row_of_id = torch.full((VOCABULARY,), -1, dtype=torch.int64)
        row_of_id[ids] = torch.arange(len(ids))
        # Both follow from used_ids: they move with the module but are no part of its state.
        self.register_buffer("row_of_id", row_of_id, persistent=False)
        self.register_buffer("untrained", untrained.half(), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        if self.row_of_id is None:
            return F.embedding(ids, self.weight)
        rows = self.row_of_id[ids]
        trained = F.embedding(rows.clamp(min=0), self.weight)
        return torch.where((rows >= 0)[..., None], trained, self.untrained[ids].to(trained.dtype))


def _checked_ids(used_ids: Sequence[int]) -> Tensor:
    ids = torch.as_tensor(used_ids, dtype=torch.int64).cpu()
    if ids.ndim != 1 or not len(ids):
        raise ValueError(f"used_ids has shape {tuple(ids.shape)}; give a list of one token id or more")
    if len(ids.unique()) != len(ids) or ids.min() < 0 or ids.max() >= VOCABULARY:
        raise ValueError(
            f"used_ids has {len(ids)} ids, {len(ids.unique())} of them distinct, "
            f"from {int(ids.min())} to {int(ids.max())}; "
            f"give distinct ids from 0 to {VOCABULARY - 1}"
        )
    return ids
