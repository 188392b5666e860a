"""SelectConceptNeurons: which K/V entries matter for a concept and not for images in general."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..cns_core.concept import Concept
from ..cns_core.host.progress import Progress
from ..cns_core.host.select import describe, select
from ..cns_core.importance import TOKEN_CHOICES
from ..cns_core.memory import ConceptMemory
from ..cns_core.plots import share_heatmap
from ..cns_core.settings import SELECT_BY, SelectionSettings
from .sockets import ConceptSocket, MemorySocket, NeuronsSocket, advanced, schema

_DEFAULTS = SelectionSettings()


class SelectConceptNeurons(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SelectConceptNeurons",
            display_name="Select Concept Neurons",
            description="Finds the cross-attention key/value entries that matter for the concept and not "
            "for images in general.",
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint's MODEL, without a memory applied."),
                io.Clip.Input("clip", tooltip="The CLIP of the same checkpoint."),
                ConceptSocket.Input("concept", tooltip="From Load Concept Images."),
                io.Combo.Input(
                    "select_by",
                    options=list(SELECT_BY),
                    default=_DEFAULTS.select_by,
                    tooltip="budget: choose how much of K/V may be trained; top percent: choose the percent "
                    "per row yourself.",
                ),
                io.Float.Input(
                    "budget_percent",
                    default=_DEFAULTS.budget_percent,
                    min=0.01,
                    max=50.0,
                    step=0.1,
                    tooltip="Percent of all K/V entries to end with. More learns harder and disturbs more.",
                ),
                io.Float.Input(
                    "top_percent",
                    default=_DEFAULTS.top_percent,
                    min=0.1,
                    max=100.0,
                    step=1.0,
                    tooltip="For 'top percent': the share of each row that counts as important for one "
                    "caption.",
                ),
                advanced(
                    io.Combo.Input(
                        "tokens",
                        options=list(TOKEN_CHOICES),
                        default=_DEFAULTS.tokens,
                        tooltip="Which tokens of a caption enter the score.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "calibration_prompts",
                        default=_DEFAULTS.calibration_prompts,
                        min=1,
                        max=128,
                        tooltip="How many general prompts say what matters for images in general.",
                    )
                ),
                MemorySocket.Input(
                    "memory", optional=True, tooltip="What was learned before, to see the overlap."
                ),
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
        chosen = SelectionSettings(**settings)
        with Progress(chosen.calibration_prompts + len(concept.images) + 1) as progress:
            neurons = select(model, clip, concept, memory, chosen, progress.phase)
        mask = neurons.selection.concept_mask
        counts, slices = mask.count_per_projection(), mask.layout.slices()
        shares = [(name, counts[name] / (shape[0] * shape[1])) for name, shape, _ in slices]
        overlap = [(c.token, mask.iou(c.mask)) for c in memory.concepts] if memory is not None else []
        text = describe(neurons, memory)
        return io.NodeOutput(neurons, share_heatmap(shares, overlap), text, ui=ui.PreviewText(text))
