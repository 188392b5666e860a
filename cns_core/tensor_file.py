"""Safetensors files of any origin, read once and as a whole.

Never through a memory map: when another program writes the file meanwhile, that would end the process.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor

# A header is a few kilobytes per concept; anything near this is not one of ours.
MAX_HEADER = 8 * 2**20
_MAX_TENSORS = 20_000  # a thousand concepts have fewer, and each one takes its time
# Those that NumPy has too; nothing that this pack writes is of another one.
_TYPES = frozenset(
    f"torch.{name}"
    for name in ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
)


class TensorFileError(ValueError):
    """A file that is no safetensors file, or a damaged one."""


@dataclass(frozen=True, eq=False)
class TensorFile:
    """What one file held at one moment."""

    metadata: dict[str, str]
    tensors: dict[str, Tensor]


def read_tensors(path: Path) -> TensorFile:
    """TensorFileError, naming the file, for anything that cannot be read as safetensors. Nothing is allocated
    beyond a few times the file's own size, and nothing is ever executed.
    """
    try:
        with path.open("rb", buffering=0) as file:  # a buffer would make it a second copy of the whole
            _check_credible(path.name, file.read(8), os.fstat(file.fileno()).st_size)
            file.seek(0)
            content = file.read()
    except (OSError, MemoryError) as error:
        raise TensorFileError(
            f"{path.name} cannot be read: {error or 'too little memory for it'}."
        ) from error
    return parse_tensors(path.name, content)


def parse_tensors(name: str, content: bytes) -> TensorFile:
    """The same of bytes; name: what to call them in an error."""
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        if len(header) > _MAX_TENSORS:
            raise ValueError(f"it lists {len(header):,} tensors, more than {_MAX_TENSORS:,}")
        metadata = header.get("__metadata__", {})
        found = TensorFile(dict(metadata), load(content))
        if odd := {str(tensor.dtype) for tensor in found.tensors.values()} - _TYPES:
            raise ValueError(f"it holds tensors of type {', '.join(sorted(odd))}")
        return found
    except Exception as error:  # the library raises half a dozen types of its own, of Rust's and PyTorch's
        raise TensorFileError(
            f"{name} is damaged or no safetensors file ({type(error).__name__}: {str(error)[:200]})."
        ) from error


def read_json(text: str) -> Any:
    """JSON without the numbers that it does not have (NaN, Infinity). ValueError for anything else."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number of JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _check_credible(name: str, start: bytes, size: int) -> None:
    """TensorFileError when what the first bytes tell of the header cannot be true."""
    if len(start) < 8:
        raise TensorFileError(f"{name} is empty or truncated ({size} bytes).")
    (length,) = struct.unpack("<Q", start)
    if length > size - 8:
        raise TensorFileError(
            f"{name} is truncated or not a safetensors file: header of {length} bytes, file of {size}."
        )
    if length > MAX_HEADER:
        raise TensorFileError(
            f"{name} has a header of {length:,} bytes; one of this pack's stays below {MAX_HEADER:,}."
        )
