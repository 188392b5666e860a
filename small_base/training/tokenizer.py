"""CLIP's tokenizer, from the files that the world carries."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .text_encoder import POSITIONS

# What transformers asks for beside the vocabulary and the merges.
_CONFIG = {
    "tokenizer_class": "CLIPTokenizer",
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "model_max_length": POSITIONS,
}


class Tokenizer:
    """Texts -> token ids as ComfyUI pads them: start, words, then end tokens to the 77th position.

    Args:
        files: the texts of vocab.json and merges.txt.
    """

    def __init__(self, files: dict[str, str]) -> None:
        from transformers import CLIPTokenizer  # takes a second to import

        if missing := sorted({"vocab.json", "merges.txt"} - set(files)):
            raise ValueError(f"the world carries no {', '.join(missing)} of CLIP's tokenizer; build it again")
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                (Path(folder) / name).write_text(text, encoding="utf-8")
            (Path(folder) / "tokenizer_config.json").write_text(json.dumps(_CONFIG), encoding="utf-8")
            self._tokenizer = CLIPTokenizer.from_pretrained(folder)
        self.files = files
        self.start = int(self._tokenizer.bos_token_id)
        self.end = int(self._tokenizer.eos_token_id)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(B, 77) int64; longer texts are cut."""
        rows = self._tokenizer(list(texts), truncation=True, max_length=POSITIONS)["input_ids"]
        ids = torch.full((len(rows), POSITIONS), self.end)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
        return ids

    def used_in(self, texts: Iterable[str]) -> list[int]:
        """Every id that occurs in `texts`, in order, with the start and the end token."""
        rows = self._tokenizer(list(texts), truncation=True, max_length=POSITIONS)["input_ids"]
        return sorted({self.start, self.end}.union(*rows))


def first_end(ids: Tensor, end: int) -> Tensor:
    """(B,) the position of each text's first end token, where CLIP reads off the whole text."""
    return (ids == end).int().argmax(-1)


def trimmed(ids: Tensor, end: int) -> Tensor:
    """Cut (B, 77) after the longest text's first end token: what follows changes nothing before it."""
    return ids[:, : int(first_end(ids, end).max()) + 1]
