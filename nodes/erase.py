"""EraseConcept: takes words out of a model, by a memory with one more entry that has no token."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from comfy_api.latest import io, ui

from ..cns_core.erasures.uce import UceSettings
from ..cns_core.erasures.wording import ToErase
from ..cns_core.host.erase import erase
from ..cns_core.host.progress import Progress
from ..cns_core.memory import ConceptMemory
from .sockets import MemorySocket, chosen_of, schema, sockets_of
from .values import checked


class EraseConcept(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EraseConcept",
            display_name="Erase Concept",
            description="Leads words elsewhere, so that the model no longer draws what they name, and keeps "
            "all else. Takes seconds, and Forget Concept undoes it.",
            search_aliases=["unlearn", "remove concept", "UCE", "concept erasure", "censor"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint's MODEL, without a memory applied."),
                io.Clip.Input("clip", tooltip="The CLIP of the same checkpoint."),
                io.String.Input(
                    "words",
                    default="",
                    multiline=True,
                    tooltip="What to erase, a word or phrase a line: leopard. Write its other names too.",
                ),
                io.String.Input(
                    "instead",
                    default="",
                    multiline=True,
                    tooltip="What is drawn in its place: one word for all, or one a line for each. Empty: as "
                    "if the words were not there.",
                ),
                *sockets_of(UceSettings, [f.name for f in fields(UceSettings)]),
                MemorySocket.Input(
                    "memory",
                    optional=True,
                    tooltip="What was learned before. It stays as it is, and the erasure becomes its latest "
                    "entry.",
                ),
            ],
            outputs=[
                MemorySocket.Output("erased", display_name="memory"),
                io.String.Output("text", display_name="text"),
            ],
        )

    @classmethod
    @checked()
    def execute(
        cls,
        model: Any,
        clip: Any,
        words: str,
        instead: str,
        memory: ConceptMemory | None = None,
        **settings: Any,
    ) -> io.NodeOutput:
        what = ToErase.of(words, instead)
        with Progress(1) as progress:
            done = erase(model, clip, memory, what, chosen_of(UceSettings, settings), progress.phase)
        told = "\n".join(f"- {line}" for line in done.lines)
        text = f"{told}\n\n{done.memory.summary()}"
        return io.NodeOutput(done.memory, text, ui=ui.PreviewText(text))
