"""Files for people who do not have this pack: where they go, and that nothing of theirs is lost by it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import folder_paths
import torch
from safetensors.torch import save
from torch import Tensor

from ..atomic_write import only_writer, write_atomically
from ..export.embedding import embedding, embedding_name
from ..export.lora import diffusers_lora, stock_lora
from ..file_names import checked_file_name
from ..memory import ConceptMemory, LearnedConcept
from ..model_card import model_card
from ..tensor_file import TensorFileError, parse_tensors, read_tensors
from .paths import check_writable, inside

STOCK, DIFFUSERS = "ComfyUI", "diffusers"
FORMS = (STOCK, DIFFUSERS)


@dataclass(frozen=True)
class Exported:
    """The files that were written, and lines that tell how to draw with them."""

    files: tuple[Path, ...]
    lines: tuple[str, ...]


def chosen_concepts(memory: ConceptMemory, names: str) -> ConceptMemory:
    """The memory of those named, by name or token with commas or line ends between; of all where none is.
    ValueError for one that is not there.
    """
    wanted = [name.strip() for name in names.replace("\n", ",").split(",") if name.strip()]
    if not len(memory):
        raise ValueError("This memory holds no concepts; there is nothing to export.")
    if not wanted:
        return memory
    handles = {memory.concept(name).handle for name in wanted}
    for concept in memory.concepts:
        if concept.handle not in handles:
            memory = memory.without(concept.handle)
    return memory


def export(memory: ConceptMemory, filename: str, form: str, overwrite: bool) -> Exported:
    """Write a LoRA of all weights and an embedding for each token.

    ComfyUI: into `models/loras/` and `models/embeddings/`. diffusers: both into a folder of ComfyUI's output
    directory.

    Raises:
        ValueError: the name is none for a file, or another file stands there and may not be replaced.
        OSError: the disk is full or cannot be written.
    """
    name = checked_file_name(filename, datetime.now())
    if form == DIFFUSERS:
        output = Path(folder_paths.get_output_directory())
        folder = inside(output, name, "ComfyUI's output directory")
        lora_file = folder / "pytorch_lora_weights.safetensors"
        tensors, embeddings = diffusers_lora(memory), folder
        triggers = [concept.token for concept in memory.with_tokens()]
    else:
        loras = Path(folder_paths.get_folder_paths("loras")[0])
        lora_file = inside(loras, f"{name}.safetensors", "the loras folder")
        tensors, embeddings = stock_lora(memory), Path(folder_paths.get_folder_paths("embeddings")[0])
        triggers = [f"embedding:{embedding_name(concept.token)}" for concept in memory.with_tokens()]
    contents = {
        embeddings / f"{embedding_name(concept.token)}.safetensors": save(
            embedding(concept), _card_of(memory, concept, trigger)
        )
        for concept, trigger in zip(memory.with_tokens(), triggers, strict=True)
    }
    if tensors:
        contents[lora_file] = save(tensors, _lora_card(memory, name, tensors, triggers))
    _write(contents, overwrite)
    lora = lora_file if tensors else None
    if form == DIFFUSERS:
        return Exported(tuple(contents), tuple(_diffusers_lines(memory, folder, lora, triggers)))
    return Exported(tuple(contents), tuple(_stock_lines(memory, lora, triggers)))


def _write(contents: Mapping[Path, bytes], overwrite: bool) -> None:
    """All of them, or none where one would take the place of another file."""
    for path in contents:
        check_writable(path)
    with ExitStack() as locks:
        for folder in sorted({path.parent for path in contents}):
            locks.enter_context(only_writer(folder))
        for path, content in contents.items():
            if path.exists() and not overwrite and not _holds(path, content):
                raise ValueError(
                    f"{path} is another file already. Switch overwrite on to replace it, or choose another "
                    "name: of the LoRA by filename, of an embedding by the concept's token."
                )
        for path, content in contents.items():
            write_atomically(path, content)


def _holds(path: Path, content: bytes) -> bool:
    """Whether a file is the same; the order of what it says of itself is left to chance."""
    try:
        there = read_tensors(path)
    except TensorFileError:
        return False
    ours = parse_tensors(path.name, content)
    return (
        there.metadata == ours.metadata
        and there.tensors.keys() == ours.tensors.keys()
        and all(torch.equal(tensor, ours.tensors[name]) for name, tensor in there.tensors.items())
    )


def _lora_card(
    memory: ConceptMemory, title: str, tensors: Mapping[str, Tensor], triggers: list[str]
) -> dict[str, str]:
    ranks = [t.shape[0] for key, t in tensors.items() if key.endswith(("lora_down.weight", "lora_A.weight"))]
    rank = str(max(ranks, default=0))
    learned_by = {c.handle: {"method": c.method, "settings": c.settings} for c in memory.concepts}
    return {
        **model_card(memory, title, "lora", triggers),
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": rank,
        "cns_base": memory.base.fingerprint,
        "cns_learned_by": json.dumps(learned_by),
    }


def _card_of(memory: ConceptMemory, concept: LearnedConcept, trigger: str) -> dict[str, str]:
    alone = ConceptMemory(memory.base, memory.layout, (concept,))
    return model_card(alone, embedding_name(concept.token), "textual-inversion", [trigger])


def _stock_lines(memory: ConceptMemory, lora: Path | None, triggers: Sequence[str]) -> list[str]:
    lines = [f"load {lora.name} with *Load LoRA*, at a strength of 1 for model"] if lora is not None else []
    for concept, trigger in zip(memory.with_tokens(), triggers, strict=True):
        lines.append(f"{concept.name}: write `{trigger}` in prompts where `{concept.token}` stood")
    also = "; the embeddings still go with it, since a checkpoint holds no tokens" if triggers else ""
    lines.append(f"for one file with all weights: Load LoRA, then the stock Save Checkpoint{also}")
    return [*lines, *_of_erasures(memory)]


def _of_erasures(memory: ConceptMemory) -> list[str]:
    gone = [concept.name for concept in memory.concepts if not concept.token]
    return [f"{', '.join(gone)}: the LoRA does it by itself, with nothing to write"] if gone else []


def _diffusers_lines(
    memory: ConceptMemory, folder: Path, lora: Path | None, triggers: Sequence[str]
) -> list[str]:
    """Python in backticks, to be run in this order with `pipe`, and words."""
    lines = [f"`folder = {str(folder)!r}`"]
    if lora is not None:
        lines.append(f'`pipe.load_lora_weights(folder, weight_name="{lora.name}")`')
    two_encoders = any(len(concept.token_vectors) > 1 for concept in memory.with_tokens())
    if two_encoders:
        lines.append("`import safetensors.torch`")
    for concept in memory.with_tokens():
        file = f"{embedding_name(concept.token)}.safetensors"
        if not two_encoders:
            lines.append(f'`pipe.load_textual_inversion(folder + "/{file}", token="{concept.token}")`')
            continue
        for encoder, suffix in zip(sorted(concept.token_vectors, key=_ORDER.index), ("", "_2"), strict=True):
            lines.append(
                f'`pipe.load_textual_inversion(safetensors.torch.load_file(folder + "/{file}")["{encoder}"], '
                f'token="{concept.token}", text_encoder=pipe.text_encoder{suffix}, '
                f"tokenizer=pipe.tokenizer{suffix})`"
            )
    if two_encoders:
        lines.append(
            "`pipe.text_encoder_2.text_model.eos_token_id = pipe.tokenizer_2.eos_token_id`: as SDXL was "
            "published, a new token is taken for the end of the prompt, where the pooled text is read"
        )
    if triggers:
        lines.append(f"then write {', '.join(triggers)} in prompts")
    return [*lines, *_of_erasures(memory)]


_ORDER = ("clip_l", "clip_g")  # of diffusers' text encoders
