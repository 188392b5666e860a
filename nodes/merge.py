"""MergeMemories: two memories of one base become one."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..cns_core.host.measure import measured
from ..cns_core.host.progress import Progress
from ..cns_core.interference import GENERAL
from ..cns_core.memory import ConceptMemory
from ..cns_core.merge import merged
from .sockets import MemorySocket, schema
from .values import checked


class MergeMemories(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MergeMemories",
            display_name="Merge Memories",
            description="The concepts of two memories of one checkpoint in one memory. Tells, before "
            "anything is drawn, how far they are in each other's way.",
            search_aliases=["combine memories", "join concepts"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint both memories were made on."),
                io.Clip.Input("clip", tooltip="Its CLIP."),
                MemorySocket.Input("first", tooltip="Its concepts come first."),
                MemorySocket.Input(
                    "second",
                    tooltip="Its concepts come after them. Where neurons of both are the same, its values "
                    "count.",
                ),
            ],
            outputs=[
                MemorySocket.Output("merged", display_name="memory"),
                io.String.Output("text", display_name="text"),
            ],
        )

    @classmethod
    @checked()
    def execute(cls, model: Any, clip: Any, first: ConceptMemory, second: ConceptMemory) -> io.NodeOutput:
        both = merged(first, second)
        handles = list(both.left())
        of_first = [handle for handle in handles if handle in first.left()]
        of_second = [handle for handle in handles if handle not in of_first]
        with Progress(1) as progress:
            found, notes = measured(model, clip, both, handles, progress.phase)
        lines = [
            *found.told(of_first, of_second),
            *found.told(of_second, of_first),
            *found.told(handles, [GENERAL]),
            *notes,
        ]
        told = "\n".join(f"- {line}" for line in lines)
        text = f"{both.summary()}\n\n{told}"
        return io.NodeOutput(both, text, ui=ui.PreviewText(text))
