"""Memories with random contents of the size that training leaves."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from cns_core.host.model import read_base
from cns_core.host.text import token_tables
from cns_core.memory import ConceptMemory, LearnedConcept
from cns_core.method import Change
from cns_core.methods import METHODS
from cns_core.methods.cns.change import CnsChange
from cns_core.methods.directions.change import DirectionsChange
from cns_core.projections import ProjectionLayout
from cns_core.settings import TrainSettings

from .models import HostModel, random_mask


def some_memory(loaded: HostModel, concepts: int, method: str = "cns") -> ConceptMemory:
    """Concepts by `cns` or `directions`, with their default settings."""
    base = read_base(loaded.model, loaded.clip)
    memory = ConceptMemory(base.identity, base.layout)
    generator = torch.Generator().manual_seed(0)
    tables = token_tables(loaded.clip)
    for index in range(concepts):
        learned = LearnedConcept(
            f"concept {index}",
            f"<concept-{index}>",
            "dog",
            "subject",
            (f"a photo of <concept-{index}>",),
            method,
            _CHANGES[method](base.layout, index, generator),
            {name: torch.randn(1, table.shape[1], generator=generator) for name, table in tables.items()},
            {"train": TrainSettings().as_dict()},
            {name: torch.zeros(500) for name in ("diffusion", "prior", "L_reg")},
            "2026-01-01T00:00:00+00:00",
        )
        memory = memory.with_learned(learned)
    return memory


def value_bytes(memory: ConceptMemory) -> int:
    """What the changes of all concepts hold."""
    tensors: list[Tensor] = [t for one in memory.concepts for t in one.change.tensors().values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _neurons(layout: ProjectionLayout, seed: int, generator: Generator) -> Change:
    mask = random_mask(layout, seed)
    return CnsChange(mask, (1e-3 * torch.randn(mask.count(), generator=generator)).half())


def _directions(layout: ProjectionLayout, seed: int, generator: Generator) -> Change:
    count = METHODS["directions"].Training().directions
    rows, width = sum(out for out, _ in layout.shapes), layout.shapes[0][1]
    answers = (1e-2 * torch.randn(rows, count, generator=generator)).half()
    vectors = torch.randn(count, width, generator=generator) / width**0.5
    return DirectionsChange(layout, answers, vectors, torch.linspace(100, 3, count))


_CHANGES = {"cns": _neurons, "directions": _directions}
