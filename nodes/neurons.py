"""SelectConceptNeurons: what of K/V may move for a concept, and what of it must not."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from comfy_api.latest import io, ui

from ..cns_core.concept import Concept
from ..cns_core.host import queue
from ..cns_core.host.prepare import prepare
from ..cns_core.host.progress import Progress
from ..cns_core.memory import ConceptMemory
from ..cns_core.methods import METHODS
from ..cns_core.within import within
from .sockets import ConceptSocket, MemorySocket, NeuronsSocket, chosen_of, schema, sockets_of
from .values import checked

# What users choose from, and the method of the registry that it stands for.
DIRECTIONS, NEURONS = "directions", "neurons"
OFFERED = {
    DIRECTIONS: METHODS["directions"],
    NEURONS: METHODS["cns"],
    "guarded neurons": METHODS["guarded neurons"],
}
_NEURONS, _DIRECTIONS = OFFERED[NEURONS].Selection, OFFERED[DIRECTIONS].Selection
_WAYS = {way: method.Selection for way, method in OFFERED.items()}


class SelectConceptNeurons(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        names = ("select_by", "budget_percent", "top_percent", "tokens", "calibration_prompts")
        return schema(
            node_id="SelectConceptNeurons",
            display_name="Select Concept Neurons",
            description="Finds what of the cross-attention's keys and values may move for the concept: "
            "directions in which nothing else listens, or the entries that matter for it.",
            search_aliases=["concept neuron selection", "guarded directions", "mask neurons"],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint's MODEL, without a memory applied."),
                io.Clip.Input("clip", tooltip="The CLIP of the same checkpoint."),
                ConceptSocket.Input("concept", tooltip="From Load Concept Images."),
                *sockets_of(_NEURONS, names, prefix="For neurons. ", ways=_WAYS),
                MemorySocket.Input(
                    "memory",
                    optional=True,
                    tooltip="What was learned before: directions leave it alone, and the picture shows how "
                    "far it would be touched. The same memory as Continual Train's.",
                ),
                *sockets_of(_NEURONS, ["score"], prefix="For neurons. ", optional=True, ways=_WAYS),
                io.Combo.Input(
                    "what_may_move",
                    options=list(OFFERED),
                    default=DIRECTIONS,
                    optional=True,
                    tooltip="directions: few directions of the text features in which only this concept "
                    "speaks, so that all else hardly changes. neurons: the paper's, few entries of K/V. "
                    "guarded neurons: these, held still where something else would hear them.",
                ),
                *sockets_of(_DIRECTIONS, [f.name for f in fields(_DIRECTIONS)], optional=True, ways=_WAYS),
            ],
            outputs=[
                NeuronsSocket.Output("neurons", display_name="neurons"),
                io.Image.Output("image", display_name="image"),
                io.String.Output("text", display_name="text"),
            ],
        )

    @classmethod
    @checked()
    def execute(
        cls,
        model: Any,
        clip: Any,
        concept: Concept,
        memory: ConceptMemory | None = None,
        what_may_move: str = NEURONS,  # of graphs from before there was a choice
        **settings: Any,
    ) -> io.NodeOutput:
        queue.check_what_follows(cls)
        method = OFFERED[what_may_move]
        with Progress(1) as progress:
            chosen = chosen_of(method.Selection, settings)
            plan = prepare(model, clip, concept, memory, method, chosen, progress.phase)
        left = {} if memory is None else memory.left()
        earlier = {token: within(change, plan.prepared.layout) for token, change in left.items()}
        text = "\n\n".join([*plan.notes, plan.prepared.report(plan.parameters, earlier)])
        return io.NodeOutput(plan, plan.prepared.picture(earlier), text, ui=ui.PreviewText(text))
