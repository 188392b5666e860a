"""Concept Neuron Selection: teach a Stable Diffusion model
your own concepts one after another, inside ComfyUI.
"""

from __future__ import annotations

import logging
from typing import Any

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> Any:
    """Called by the host. Nothing is imported before that, so that the core can be used without ComfyUI."""
    try:
        from comfy_api.latest import ComfyExtension

        from .cns_core.host import routes
        from .cns_core.host.paths import register_memory_folder
        from .nodes import (
            captions,
            concept,
            draw,
            erase,
            export,
            foreign,
            forget,
            join,
            locate,
            matrix,
            memory,
            merge,
            method,
            neurons,
            refine,
            score,
            space,
            train,
        )

        register_memory_folder()
        routes.register()
    except Exception:
        # The host reduces an error here to one line and drops the pack; leave the whole story in the log.
        logging.exception("ComfyUI-CNS could not be loaded")
        raise

    nodes = [
        concept.LoadConceptImages,
        neurons.SelectConceptNeurons,
        method.ChooseMethod,
        train.ContinualTrain,
        draw.ApplyPersonalizedUNet,
        score.CLIPScore,
        memory.SaveConceptMemory,
        memory.LoadConceptMemory,
        forget.ForgetConcept,
        erase.EraseConcept,
        refine.RefineConcept,
        merge.MergeMemories,
        join.MergeConcepts,
        space.SampleConcept,
        space.EditConcept,
        export.ExportConceptMemory,
        foreign.ImportConcept,
        matrix.ConceptMatrix,
        locate.LocateConcept,
        captions.CaptionConceptImages,
    ]

    class ConceptNeuronSelection(ComfyExtension):
        async def get_node_list(self) -> list[Any]:
            return nodes

    return ConceptNeuronSelection()
