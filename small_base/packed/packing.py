"""`pack` and `expand`: a trained base as one small file, and the whole checkpoint made of it again.

What is packed is a safetensors file in an xz stream. Large matrices and convolutions of the U-Net and the
text encoder are whole numbers with a factor a row. Everything else is fp16, the VAE too: its pictures stay
84 dB close to those in fp32. The rest of the checkpoint, such as CLIP's untrained words and layers, follows
from rules. Every machine makes the same tensors of one file, and their digest in the file proves it.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from safetensors.torch import save_file
from torch import Tensor, nn

from ..files import frozen, load_text, load_unet, load_vae, trained_steps
from ..layout import SIZES, BaseSize, full_checkpoint
from ..training.text_encoder import TextEncoder
from ..training.unet import new_unet
from ..training.vae import Vae
from .card import read_figures, write_card
from .quantisation import MOST_BITS, dequantise_rows, quantise_rows

FORMAT = "emoji base 1"
FILE_LIMIT = 48_000_000  # bytes of a packed file
CONTENT_LIMIT = 1 << 28  # bytes that one may unpack to
SUFFIX = ".safetensors.xz"

_UNPACKING_MEMORY = 1 << 26  # bytes for xz itself; preset 6 needs 9 MB
_HEADER = "base"  # the one key of the safetensors metadata: with several their order would be random
_FACTORS = ":factors"
_WORTH_QUANTISING = 1 << 16  # smaller ones, the U-Net's first and last layer too, cost next to nothing whole
_PARTS = ("unet", "vae", "text")

State = dict[str, Tensor]


class PackedFileError(ValueError):
    """The file is not a whole packed base."""


@dataclass(frozen=True)
class Packed:
    """What a packed file holds."""

    size: BaseSize
    bits: int  # of a quantised weight
    used_ids: list[int]  # whose rows are trained
    steps: dict[str, int]  # of training, by tool
    sha256: str  # of the expanded checkpoint, see `digest`
    states: dict[str, State]  # of the networks "unet", "vae", "text"


def pack(work: Path, size: BaseSize, out: Path, bits: int = MOST_BITS) -> Path:
    """Write the newest averaged networks as `out/base-<size>.safetensors.xz`, and a model card beside it.

    The same networks make the same file. What `bench` last found goes into the card.

    Args:
        work: where the training tools keep their checkpoints.
        out: the folder for both files.
        bits: of a weight in a large matrix; fewer make a smaller and less exact file.

    Raises:
        ValueError: the file would be too large, or the networks are not finite.
    """
    text, used_ids = load_text(work, size)
    networks_of = {"unet": load_unet(work, size), "vae": load_vae(work, size), "text": text}
    figures = read_figures(work, size)  # before the slow part: it may be the one to complain
    tensors = _packed_tensors({part: network.state_dict() for part, network in networks_of.items()}, bits)
    states = _unpacked_states(tensors)
    checkpoint = full_checkpoint(states["unet"], states["vae"], states["text"], used_ids)
    header = {
        "format": FORMAT,
        "size": size.name,
        "bits": bits,
        "used_ids": used_ids,
        "steps": trained_steps(work, size),
        "sha256": digest(checkpoint),
    }
    data = _compressed(save_tensors(tensors, {_HEADER: json.dumps(header, sort_keys=True)}))
    if len(data) > FILE_LIMIT:
        raise ValueError(
            f"base-{size.name} takes {len(data) / 1e6:.1f} MB at {bits} bits a weight, and a packed base may "
            f"take {FILE_LIMIT / 1e6:.0f} MB: pack it with fewer, such as --bits {bits - 1}"
        )
    path = out / f"base-{size.name}{SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, lambda unfinished: unfinished.write_bytes(data))
    packed = Packed(size, bits, used_ids, header["steps"], header["sha256"], states)
    card = write_card(path, packed, checkpoint, figures)
    print(f"{path}: {len(data) / 1e6:.1f} MB, {bits} bits a weight; its model card is {card}")
    return path


def expand(packed: Path, out: Path) -> None:
    """Write the checkpoint that ComfyUI loads as an SD 1.5, `.safetensors`, whole or not at all."""
    if out.suffix != ".safetensors":
        raise ValueError(f"{out}: name a .safetensors file, for ComfyUI goes by the ending")
    checkpoint = expanded_state(packed)
    out.parent.mkdir(parents=True, exist_ok=True)
    _replace(out, lambda unfinished: save_file(checkpoint, unfinished, metadata={"format": "pt"}))
    print(f"{out}: {out.stat().st_size / 1e6:.0f} MB, {len(checkpoint)} tensors, as they were packed")


def expanded_state(packed: Path) -> State:
    """Every tensor of the checkpoint by its name in the host, checked against the digest."""
    content = read_packed(packed)
    # Through the networks: what does not fit into them is no base.
    unet, vae, text = (network.state_dict() for network in _networks_of(content, packed))
    checkpoint = full_checkpoint(unet, vae, text, content.used_ids)
    if (found := digest(checkpoint)) != content.sha256:
        raise PackedFileError(
            f"{packed} expands to another checkpoint than was packed: sha256 {found}, not {content.sha256}. "
            "The file is damaged or was packed by another version of this tool: get it again."
        )
    return checkpoint


def networks(packed: Path) -> tuple[nn.Module, Vae, TextEncoder]:
    """The packed networks, frozen, float32, with exactly the weights that the expanded checkpoint has."""
    return _networks_of(read_packed(packed), packed)


def read_packed(path: Path) -> Packed:
    """Read and decode what `pack` wrote.

    Raises:
        PackedFileError: the file is damaged, cut off or something else.
        FileNotFoundError: there is no such file.
    """
    if (size := path.stat().st_size) > FILE_LIMIT:
        raise PackedFileError(f"{path} has {size} bytes; a packed base has at most {FILE_LIMIT}")
    try:
        return _parse(_decompressed(path.read_bytes()))
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
        lzma.LZMAError,
        SafetensorError,
    ) as error:
        raise PackedFileError(f"{path} is not a whole packed base: {error}. Get or pack it again.") from error


def digest(checkpoint: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes of all tensors, in order."""
    total = hashlib.sha256()
    for name, tensor in checkpoint.items():
        total.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _packed_tensors(states: Mapping[str, State], bits: int) -> State:
    tensors = {}
    for part, state in states.items():
        for name, tensor in state.items():
            tensor, key = tensor.detach().cpu().contiguous(), f"{part}.{name}"
            if part != "vae" and tensor.ndim > 1 and tensor.numel() >= _WORTH_QUANTISING:
                tensors[key], tensors[key + _FACTORS] = quantise_rows(tensor, bits)
            elif tensor.ndim:
                tensors[key] = tensor.half()
            else:
                tensors[key] = tensor.float()  # the host's factor has to be met exactly
    return tensors


def _unpacked_states(tensors: State) -> dict[str, State]:
    states: dict[str, State] = {part: {} for part in _PARTS}
    for key, tensor in tensors.items():
        if key.endswith(_FACTORS):
            continue
        part, _, name = key.partition(".")
        states[part][name] = (
            dequantise_rows(tensor, tensors[key + _FACTORS]) if tensor.dtype == torch.int8 else tensor
        )
    return states


def _compressed(data: bytes) -> bytes:
    # Weights have no alignment and no text for xz to find: without contexts it is a little better.
    return lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 0, "lp": 0, "pb": 0}])


def _decompressed(data: bytes) -> bytes:
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_UNPACKING_MEMORY)
    content = decompressor.decompress(data, max_length=CONTENT_LIMIT + 1)
    if len(content) > CONTENT_LIMIT:
        raise ValueError(f"it unpacks to more than {CONTENT_LIMIT} bytes")
    if not decompressor.eof:
        raise ValueError(f"it is cut off after {len(data)} bytes")
    if decompressor.unused_data:
        raise ValueError(f"{len(decompressor.unused_data)} bytes follow its end")
    return content


def _parse(content: bytes) -> Packed:
    tensors = load_tensors(content)  # first: it checks the header's length
    header_end = 8 + int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8:header_end]).get("__metadata__", {})
    if _HEADER not in metadata:
        raise ValueError("it is a safetensors file of something else")
    header = json.loads(metadata[_HEADER])
    if header["format"] != FORMAT:
        raise ValueError(f"its format is {header['format']!r}, this version reads {FORMAT!r}")
    if header["size"] not in SIZES:
        raise ValueError(f"its size is {header['size']!r}, known are {', '.join(SIZES)}")
    return Packed(
        size=SIZES[header["size"]],
        bits=int(header["bits"]),
        used_ids=[int(number) for number in header["used_ids"]],
        steps={str(tool): int(count) for tool, count in header["steps"].items()},
        sha256=str(header["sha256"]),
        states=_unpacked_states(tensors),
    )


def _networks_of(content: Packed, path: Path) -> tuple[nn.Module, Vae, TextEncoder]:
    try:
        text = TextEncoder(content.size.text_layers, content.used_ids)
    except ValueError as error:
        raise PackedFileError(f"{path} holds no base: {error}. Get or pack it again.") from error
    unet, vae = new_unet(content.size.channel_mult), Vae()
    for part, network in zip(_PARTS, (unet, vae, text), strict=True):
        expected = {(name, tensor.shape) for name, tensor in network.state_dict().items()}
        seen = {(name, tensor.shape) for name, tensor in content.states[part].items()}
        if wrong := sorted({name for name, _ in expected ^ seen}):
            raise PackedFileError(
                f"{path} holds no base of size {content.size.name}: {len(wrong)} tensors of its {part} are "
                f"missing, unknown or of another shape, such as {wrong[0]}. Get or pack it again."
            )
        network.load_state_dict(content.states[part])
    return frozen(unet), frozen(vae), frozen(text)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` write a file beside `path`, which then takes its place."""
    unfinished = path.with_name(path.name + ".partial")
    try:
        write(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
