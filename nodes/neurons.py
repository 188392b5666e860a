"""SelectConceptNeurons: which K/V entries matter for a concept and not for images in general."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..cns_core.concept import Concept
from ..cns_core.evaluation.plots import share_bars
from ..cns_core.host.prepare import prepare
from ..cns_core.host.progress import Progress
from ..cns_core.memory import ConceptMemory
from ..cns_core.methods import METHODS
from .sockets import ConceptSocket, MemorySocket, NeuronsSocket, schema, sockets_of

_METHOD = METHODS["cns"]


class SelectConceptNeurons(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        names = ("select_by", "budget_percent", "top_percent", "tokens", "calibration_prompts")
        return schema(
            node_id="SelectConceptNeurons",
            display_name="Select Concept Neurons",
            description="Finds the cross-attention key/value entries that matter for the concept "
            "and not for images in general.",
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint's MODEL, without a memory applied."),
                io.Clip.Input("clip", tooltip="The CLIP of the same checkpoint."),
                ConceptSocket.Input("concept", tooltip="From Load Concept Images."),
                *sockets_of(_METHOD.Selection, names),
                MemorySocket.Input(
                    "memory", optional=True, tooltip="What was learned before, to see the overlap."
                ),
                *sockets_of(_METHOD.Selection, ["score"], optional=True),
            ],
            outputs=[
                NeuronsSocket.Output("neurons", display_name="neurons"),
                io.Image.Output("image", display_name="image"),
                io.String.Output("text", display_name="text"),
            ],
        )

    @classmethod
    def execute(
        cls, model: Any, clip: Any, concept: Concept, memory: ConceptMemory | None = None, **settings: Any
    ) -> io.NodeOutput:
        chosen = _METHOD.Selection(**settings)
        with Progress(1) as progress:
            plan = prepare(model, clip, concept, memory, _METHOD, chosen, progress.phase)
        earlier = {c.token: c.change for c in memory.concepts} if memory is not None else {}
        overlap = [(token, plan.prepared.overlap(change)) for token, change in earlier.items()]
        text = plan.prepared.report(plan.parameters, earlier)
        picture = share_bars(list(plan.prepared.moving().items()), overlap)
        return io.NodeOutput(plan, picture, text, ui=ui.PreviewText(text))
