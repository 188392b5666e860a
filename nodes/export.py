"""ExportConceptMemory: learned concepts for people who do not have this pack."""

from __future__ import annotations

import uuid
from typing import Any

from comfy_api.latest import io, ui

from ..cns_core.host.export import FORMS, STOCK, chosen_concepts, export
from ..cns_core.memory import ConceptMemory
from .sockets import MemorySocket, schema
from .values import checked


class ExportConceptMemory(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ExportConceptMemory",
            display_name="Export Concept Memory",
            description="Writes one LoRA file and an embedding for each token, which draw the same with "
            "ComfyUI's own nodes or with diffusers, without this pack.",
            search_aliases=["share concept", "save lora", "save embedding", "diffusers"],
            is_output_node=True,
            inputs=[
                MemorySocket.Input("memory", tooltip="From Continual Train or Load Concept Memory."),
                io.String.Input(
                    "filename",
                    default="my_concepts",
                    tooltip="Of the LoRA, without ending. Embeddings are named after their tokens: my-dog "
                    "for <my-dog>.",
                ),
                io.Combo.Input(
                    "form",
                    options=list(FORMS),
                    default=STOCK,
                    tooltip="ComfyUI: into models/loras and models/embeddings, as Load LoRA and "
                    "embedding:my-dog read them, and other programs too. diffusers: a folder in ComfyUI's "
                    "output directory.",
                ),
                io.String.Input(
                    "concepts",
                    default="",
                    tooltip="Which ones, by name or token, with commas between. Empty: all.",
                ),
                io.Boolean.Input(
                    "overwrite", default=False, tooltip="Replace files of these names that hold other things."
                ),
            ],
            outputs=[io.String.Output("text", display_name="text")],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> str:
        """Files that were deleted since are written again."""
        return str(uuid.uuid4())

    @classmethod
    @checked()
    def execute(
        cls, memory: ConceptMemory, filename: str, form: str, concepts: str, overwrite: bool
    ) -> io.NodeOutput:
        done = export(chosen_concepts(memory, concepts), filename, form, overwrite)
        files = [f"{path} ({path.stat().st_size / 1e6:.2f} MB)" for path in done.files]
        told = "\n".join(f"- {line}" for line in (*files, *done.lines))
        text = f"Written:\n\n{told}"
        return io.NodeOutput(text, ui=ui.PreviewText(text))
