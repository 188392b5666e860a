"""MergeConcepts: concepts learned apart become one memory, by a rule that sees all of them at once."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from comfy_api.latest import io, ui

from ..cns_core.host.join import join_memories
from ..cns_core.host.progress import Progress
from ..cns_core.joining import JOININGS
from ..cns_core.memory import ConceptMemory
from .sockets import MemorySocket, chosen_of, schema, sockets_of
from .values import checked

_MOST = 8  # memories
_FROM = "From Load Concept Memory or Continual Train."


class MergeConcepts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MergeConcepts",
            display_name="Merge Concepts",
            description="Joins concepts that were learned apart, each in a memory of its own on one "
            "checkpoint, so that all keep what their own weights do: the merges of Mix-of-Show, Custom "
            "Diffusion, ZipLoRA and Orthogonal Adaptation.",
            search_aliases=[
                "gradient fusion",
                "mix-of-show",
                "ziplora",
                "custom diffusion merge",
                "merge loras",
                "join memories",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint all memories were made on."),
                io.Clip.Input("clip", tooltip="Its CLIP."),
                MemorySocket.Input("memory_1", tooltip=_FROM),
                MemorySocket.Input("memory_2", tooltip=_FROM),
                io.Combo.Input(
                    "rule",
                    options=list(JOININGS),
                    default=next(iter(JOININGS)),
                    tooltip="gradient fusion: one set of weights that answers each concept's captions as its "
                    "own do (Mix-of-Show). closed form: the same, with general prompts moved as little as "
                    "that allows (Custom Diffusion). ziplora: a subject and a style, by factors on columns. "
                    "sum: all changes added (Orthogonal Adaptation).",
                ),
                *_settings(),
                *(
                    MemorySocket.Input(f"memory_{number}", optional=True, tooltip=_FROM)
                    for number in range(3, _MOST + 1)
                ),
            ],
            outputs=[
                MemorySocket.Output("joined", display_name="memory"),
                io.String.Output("text", display_name="text"),
            ],
        )

    @classmethod
    @checked()
    def execute(cls, model: Any, clip: Any, rule: str, **given: Any) -> io.NodeOutput:
        names = [f"memory_{number}" for number in range(1, _MOST + 1)]
        memories = [given.pop(name) for name in names if given.get(name) is not None]
        chosen = JOININGS[rule]
        settings = chosen_of(chosen.Settings, given)
        with Progress(1) as progress:
            joined, notes = join_memories(model, clip, memories, chosen, settings, progress.phase)
        lines = [
            *(_kept(memory, missed) for memory, missed in zip(memories, joined.missed, strict=True)),
            f"keys and values of general prompts move by {joined.general:.2%}",
            *notes,
        ]
        told = "\n".join(f"- {line}" for line in lines)
        text = f"{told}\n\n{joined.memory.summary()}"
        return io.NodeOutput(joined.memory, text, ui=ui.PreviewText(text))


def _settings() -> list[Any]:
    """Sockets of all rules' settings; of those that several have, one."""
    found: dict[str, Any] = {}
    for rule in JOININGS.values():
        names = [field.name for field in fields(rule.Settings) if field.name not in found]
        found |= zip(names, sockets_of(rule.Settings, names), strict=True)
    return list(found.values())


def _kept(memory: ConceptMemory, missed: float) -> str:
    tokens = ", ".join(f"`{concept.token}`" for concept in memory.concepts)
    return f"{tokens}: of what it changes in keys and values of its captions, {missed:.2%} is off"
