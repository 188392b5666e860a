"""SaveConceptMemory and LoadConceptMemory: files in `models/concept_memory/`."""

from __future__ import annotations

import uuid
from typing import Any

from comfy_api.latest import io, ui

from ..cns_core.host import paths, queue
from ..cns_core.memory import ConceptMemory
from ..cns_core.memory_file import file_digest, load_memory, update_memory
from .sockets import MemorySocket, schema
from .values import check_input, checked


class SaveConceptMemory(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SaveConceptMemory",
            display_name="Save Concept Memory",
            description="Writes all learned concepts into one small file in models/concept_memory/.",
            search_aliases=["save concept", "save lora", "save training"],
            is_output_node=True,
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            inputs=[
                # Lazy: what can be known of the file is checked before anything is trained.
                MemorySocket.Input("memory", tooltip="From Continual Train.", lazy=True),
                io.String.Input(
                    "filename",
                    default="my_concepts",
                    tooltip="File name, without ending. Sub-folders are separated by /; %date:yyyy-MM-dd% is "
                    "filled in.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    tooltip="Replace a file that holds other concepts, or the same ones learned otherwise. A "
                    "file whose concepts are all in this memory is always brought up to date.",
                ),
            ],
            outputs=[io.String.Output("text", display_name="text")],
        )

    @classmethod
    def validate_inputs(cls, filename: str | None) -> bool | str:
        try:
            if filename is not None:  # else it comes from another node
                paths.new_memory_file(filename)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, filename: str | None, **_: Any) -> str:
        """That of the file that stands there: one that was deleted or exchanged is saved again. A name that
        comes from another node is not known yet.
        """
        path = None if filename is None else paths.new_memory_file(filename)
        return str(uuid.uuid4()) if path is None or not path.is_file() else file_digest(path)

    @classmethod
    def check_lazy_status(
        cls, filename: str, overwrite: bool, memory: ConceptMemory | None = None
    ) -> list[str]:
        if memory is not None:
            return []
        check_input(cls, "filename", filename)
        graph, node_id = queue.running(cls)
        own = graph.get(node_id)  # none, too, where another node has put this one into the graph
        queue.check_saving(graph, filename, overwrite, None if own is None else own["inputs"]["memory"])
        return ["memory"]

    @classmethod
    @checked()
    def execute(cls, memory: ConceptMemory, filename: str, overwrite: bool) -> io.NodeOutput:
        path = paths.new_memory_file(filename)
        update_memory(path, memory, replace=overwrite)
        text = f"Saved {path.name} ({path.stat().st_size / 1e6:.1f} MB)\n\n{memory.summary()}"
        return io.NodeOutput(text, ui=ui.PreviewText(text))


class LoadConceptMemory(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="LoadConceptMemory",
            display_name="Load Concept Memory",
            description="Loads learned concepts from models/concept_memory/.",
            search_aliases=["load concept", "load lora", "open memory"],
            inputs=[
                io.Combo.Input(
                    "file", options=paths.memory_files(), tooltip="A file in models/concept_memory/."
                )
            ],
            outputs=[
                MemorySocket.Output("memory", display_name="memory"),
                io.String.Output("text", display_name="text"),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        try:
            paths.memory_file(file)
        except ValueError as error:
            return queue.will_be_saved(file) or str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str) -> str:
        return file_digest(paths.memory_file(file))

    @classmethod
    @checked()
    def execute(cls, file: str) -> io.NodeOutput:
        memory = load_memory(paths.memory_file(file))
        return io.NodeOutput(memory, memory.summary(), ui=ui.PreviewText(memory.summary()))
