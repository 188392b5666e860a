"""ApplyPersonalizedUNet: MODEL and CLIP that draw every concept of a memory."""

from __future__ import annotations

import logging
from typing import Any

from comfy_api.latest import io, ui

from ..cns_core.host import queue
from ..cns_core.host.personalize import personalize
from ..cns_core.memory import ConceptMemory
from .sockets import MemorySocket, schema
from .values import checked

_REFUSE, _CLOSE_TOO = "refuse", "a close one too"


class ApplyPersonalizedUNet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ApplyPersonalizedUNet",
            display_name="Apply Personalized UNet",
            description="MODEL and CLIP that draw every learned concept. Write the tokens in any prompt of "
            "the stock text encode node.",
            search_aliases=["load concept", "apply memory", "apply lora", "draw concept"],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint the memory was made on."),
                io.Clip.Input("clip", tooltip="Its CLIP."),
                MemorySocket.Input("memory", tooltip="From Continual Train or Load Concept Memory."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-2.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Scale of the learned weight changes. 1 is as trained; 0 leaves only the tokens.",
                ),
                io.String.Input(
                    "as_of",
                    default="",
                    tooltip="Draw as of an earlier stage: a concept's name, token or number. Empty: "
                    "everything learned.",
                ),
                io.String.Input(
                    "strengths",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Strengths of single concepts, by name or token: '<my-dog> 0.8, my mug 1.2'. "
                    "1 for those not named; 0 leaves only a concept's token.",
                ),
                io.Combo.Input(
                    "other_model",
                    options=[_REFUSE, _CLOSE_TOO],
                    default=_REFUSE,
                    optional=True,
                    tooltip="Whether the memory may be drawn with on another model than it was made on: a "
                    "close one is a fine-tune or merge of it. A warning tells how far apart they are. LoRAs "
                    "on MODEL are always fine.",
                ),
            ],
            outputs=[
                io.Model.Output("personalized_model", display_name="MODEL"),
                io.Clip.Output("personalized_clip", display_name="CLIP"),
            ],
        )

    @classmethod
    @checked()
    def execute(
        cls,
        model: Any,
        clip: Any,
        memory: ConceptMemory,
        strength: float,
        as_of: str,
        strengths: str = "",
        other_model: str = _REFUSE,
    ) -> io.NodeOutput:
        close_too = other_model == _CLOSE_TOO
        drawn = personalize(model, clip, memory, strength, as_of, strengths, close_too)
        warnings = [drawn.warning] if drawn.warning else []
        writers = queue.weights_written_after(*queue.running(cls))
        if writers and memory.with_tokens():
            warnings.append(
                f"{' and '.join(writers)} writes the weights as they are patched here, but not the tokens: "
                f"{', '.join(memory.token_vectors())} will mean nothing in that file. Keep the "
                "memory and draw with it on the checkpoint that it was made on."
            )
        if not warnings:
            return io.NodeOutput(drawn.model, drawn.clip)
        text = "\n\n".join(warnings)
        logging.warning(f"CNS: {text}")
        return io.NodeOutput(drawn.model, drawn.clip, ui=ui.PreviewText(text))
