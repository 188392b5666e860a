"""Sound files to start from: a memory with a concept of each kind of method, and a training's checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from cns_core.checkpoint import TrainerState, save_state
from cns_core.identity import ModelIdentity, sample_of
from cns_core.memory import ConceptMemory, LearnedConcept
from cns_core.memory_file import save_memory
from cns_core.method import Change
from cns_core.methods.cns.change import CnsChange
from cns_core.methods.cns.masks import NeuronMask
from cns_core.methods.directions.change import DirectionsChange
from cns_core.methods.token_only import NoChange
from cns_core.projections import ProjectionLayout
from cns_core.thumbnails import jpeg_of

LAYOUT = ProjectionLayout(("a.attn2.to_k", "a.attn2.to_v"), ((30, 41), (20, 41)))
RUN_KEY = "0123456789abcdef"


def memory(seed: int, concepts: int = 3, stem: str = "dog") -> ConceptMemory:
    """A memory of that many concepts, of three methods in turn; every number of it comes from the seed."""
    chance = torch.Generator().manual_seed(seed)
    learned = tuple(concept(f"{stem} {i}", i, chance) for i in range(concepts))
    sample = sample_of([(torch.linspace(-1, 1, 100), torch.float16, 3)])
    return ConceptMemory(ModelIdentity("SD1", "ab" * 32, sample), LAYOUT, learned)


def concept(name: str, number: int, chance: torch.Generator) -> LearnedConcept:
    token = f"<{name.replace(' ', '-')}>"
    method, change = _change(number, chance)
    return LearnedConcept(
        name=name,
        token=token,
        class_word="dog",
        kind="subject",
        captions=(f"a photo of {token}", f"the {token}"),
        method=method,
        change=change,
        token_vectors={
            "clip_l": torch.randn(1 + number % 3, 8, generator=chance),
            "clip_g": torch.randn(1 + number % 3, 12, generator=chance),
        },
        settings={"train": {"steps": 3, "prior": "none"}, "method": {}, "select": {}},
        losses={"diffusion": torch.rand(3, generator=chance), "guard": torch.rand(3, generator=chance)},
        learned_at="2026-01-01T00:00:00+00:00",
        thumbnail=b"" if number % 3 == 2 else jpeg_of(torch.rand(40, 32, 3, generator=chance)),
    )


def _change(number: int, chance: torch.Generator) -> tuple[str, Change]:
    if number % 3 == 0:
        answers = torch.randn(50, 2, generator=chance).half()
        directions = torch.randn(2, 41, generator=chance)
        return "directions", DirectionsChange(LAYOUT, answers, directions, torch.tensor([9.0, 4.0]))
    if number % 3 == 1:
        dense = {n: torch.rand(s, generator=chance) < 0.2 for n, s, _ in LAYOUT.slices()}
        mask = NeuronMask.from_dense(LAYOUT, dense)
        return "cns", CnsChange(mask, torch.randn(mask.count(), generator=chance).half())
    return "token alone", NoChange(LAYOUT)


def memory_file(folder: Path, seed: int) -> bytes:
    path = folder / f"sound-{seed}.safetensors"
    save_memory(path, memory(seed))
    return path.read_bytes()


def checkpoint_file(folder: Path, seed: int) -> bytes:
    path, chance = folder / f"sound-{seed}.checkpoint.safetensors", torch.Generator().manual_seed(seed)
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.randn(40, generator=chance)}
    state = TrainerState(
        adaptation={"values": torch.randn(40, generator=chance)},
        token_vectors={"clip_l": torch.randn(1, 8, generator=chance)},
        optimizer={f"neurons.0.{name}": value for name, value in moments.items()},
        generator=chance.get_state(),
        losses={"diffusion": (0.5, 0.25, 0.125), "guard": (0.0, 0.0, 1.0)},
    )
    save_state(path, state, RUN_KEY)
    return path.read_bytes()


def many_concepts(seed: int, count: int) -> ConceptMemory:
    """A memory of so many concepts that its words, and not its numbers, are what takes time."""
    chance = torch.Generator().manual_seed(seed)
    learned = tuple(concept(f"c {number}", 2, chance) for number in range(count))
    return ConceptMemory(ModelIdentity("SD1", "ab" * 32), LAYOUT, learned)
