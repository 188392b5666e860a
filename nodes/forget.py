"""ForgetConcept: takes one concept out of a memory."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..cns_core.forget import forget
from ..cns_core.host.measure import measured
from ..cns_core.host.progress import Progress
from ..cns_core.interference import GENERAL
from ..cns_core.memory import ConceptMemory
from .sockets import MemorySocket, schema
from .values import checked


class ForgetConcept(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ForgetConcept",
            display_name="Forget Concept",
            description="Takes a concept's token and its share of the weights out of a memory, or brings "
            "back what was erased. The file it came from is left alone: save the result to keep it.",
            search_aliases=["remove concept", "delete concept", "unlearn"],
            inputs=[
                MemorySocket.Input("memory", tooltip="From Continual Train or Load Concept Memory."),
                io.String.Input(
                    "concept",
                    default="",
                    tooltip="The concept's name or token, such as <my-dog>, or an erasure's name.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="With model and clip, the text tells how far everything else moves without the "
                    "concept.",
                ),
                io.Clip.Input("clip", optional=True, tooltip="The CLIP of the same checkpoint."),
            ],
            outputs=[
                MemorySocket.Output("rest", display_name="memory"),
                io.String.Output("text", display_name="text"),
            ],
        )

    @classmethod
    @checked()
    def execute(
        cls, memory: ConceptMemory, concept: str, model: Any = None, clip: Any = None
    ) -> io.NodeOutput:
        if (model is None) != (clip is None):
            raise ValueError(
                "Only one of model and clip is connected; the effect is measured with both of one "
                "checkpoint, or not at all. Connect the other, or unplug this one."
            )
        forgotten = forget(memory, concept)
        lines = forgotten.told()
        if model is not None:
            handle, rest = forgotten.concept.handle, forgotten.memory.left()
            with Progress(1) as progress:
                found, notes = measured(model, clip, memory, [handle], progress.phase)
            lines += [
                f"without it keys and values of {group if group == GENERAL else f'`{group}`'} move by "
                f"{found.moves[handle, group]:.2%}"
                for group in (GENERAL, *rest)
            ]
            lines += notes
        told = "\n".join(f"- {line}" for line in lines)
        text = f"{told}\n\n{forgotten.memory.summary()}"
        return io.NodeOutput(forgotten.memory, text, ui=ui.PreviewText(text))
