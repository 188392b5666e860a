"""LocateConcept: in which layers of the U-Net a learned concept lives."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from comfy_api.latest import io, ui

from ..cns_core.concept import Concept
from ..cns_core.evaluation.place_map import heat_map, report
from ..cns_core.host.locate import locate
from ..cns_core.host.progress import Progress
from ..cns_core.host.types import Loaded
from ..cns_core.localisation import LocateSettings
from ..cns_core.memory import ConceptMemory
from .sockets import ConceptSocket, MemorySocket, chosen_of, schema, sockets_of
from .values import checked


class LocateConcept(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="LocateConcept",
            display_name="Locate Concept",
            description="Tells in which attention layers of the U-Net a learned concept lives: how much of "
            "it is there with one layer alone, and how much goes without it. Nothing is drawn or changed.",
            search_aliases=["localisation", "localization", "layers", "heat map", "block weights"],
            is_output_node=True,
            inputs=[
                io.Model.Input(
                    "model", tooltip="The checkpoint the memory was made on, without a memory applied."
                ),
                io.Clip.Input("clip", tooltip="Its CLIP."),
                io.Vae.Input("vae", tooltip="Its VAE."),
                MemorySocket.Input("memory", tooltip="From Continual Train or Load Concept Memory."),
                ConceptSocket.Input(
                    "concept",
                    tooltip="From Load Concept Images: the pictures that it was learned from, with its name, "
                    "token and class word.",
                ),
                *sockets_of(LocateSettings, [field.name for field in fields(LocateSettings)]),
            ],
            outputs=[
                io.Image.Output("heat_map", display_name="heat_map"),
                io.String.Output("text", display_name="text"),
            ],
        )

    @classmethod
    @checked()
    def execute(
        cls, model: Any, clip: Any, vae: Any, memory: ConceptMemory, concept: Concept, **settings: Any
    ) -> io.NodeOutput:
        with Progress(1) as progress:
            chosen = chosen_of(LocateSettings, settings)
            found = locate(Loaded(model, clip, vae), memory, concept, chosen, progress.phase)
        text = report(found)
        return io.NodeOutput(heat_map(found), text, ui=ui.PreviewText(text))
