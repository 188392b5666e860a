"""RefineConcept: more pictures or more steps for a concept that was learned already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..cns_core.concept import Concept
from ..cns_core.evaluation.plots import loss_curve
from ..cns_core.host import queue
from ..cns_core.host.kept import Limits
from ..cns_core.host.learn import Preview
from ..cns_core.host.refine import Further, refine
from ..cns_core.host.training_memory import MemoryUse
from ..cns_core.host.types import Loaded
from ..cns_core.memory import ConceptMemory
from .sockets import ConceptSocket, MemorySocket, chosen_of, schema, sockets_of
from .values import checked


class RefineConcept(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="RefineConcept",
            display_name="Refine Concept",
            description="Learns a concept of a memory further, from more pictures or for more steps, and "
            "keeps all others as they are. It goes by the settings that the concept was learned by.",
            search_aliases=["train further", "improve concept", "continue training"],
            is_output_node=True,
            is_input_list=True,
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint's MODEL, without a memory applied."),
                io.Clip.Input("clip", tooltip="The CLIP of the same checkpoint."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                MemorySocket.Input("memory", tooltip="The memory that holds the concept."),
                ConceptSocket.Input(
                    "concept",
                    tooltip="From Load Concept Images, with the concept's own name, token and class word. "
                    "Its pictures are those to learn from now: old ones, new ones or both.",
                ),
                io.Int.Input("steps", default=100, min=1, max=100_000, tooltip="Optimizer steps to add."),
                io.Float.Input(
                    "rate",
                    default=1.0,
                    min=0.01,
                    max=10.0,
                    step=0.05,
                    tooltip="A factor on the learning rates that the concept was learned with.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**63 - 1,
                    control_after_generate=False,
                    tooltip="Of noise and the order of pictures.",
                ),
                io.String.Input(
                    "preview_prompt",
                    default="",
                    multiline=True,
                    tooltip="Drawn while training, to watch it learn. {} stands for the token.",
                ),
                io.Int.Input(
                    "preview_every",
                    default=50,
                    min=0,
                    max=100_000,
                    tooltip="Steps between previews; 0 draws none.",
                ),
                io.Image.Input(
                    "class_images",
                    optional=True,
                    tooltip="Ordinary pictures of the class, for a concept that was learned with given ones.",
                ),
                *sockets_of(Limits, ["keep_gb", "keep_days"], optional=True),
                *sockets_of(MemoryUse, ["checkpointing"], optional=True),
            ],
            outputs=[
                MemorySocket.Output("refined", display_name="memory"),
                io.Image.Output("loss_curve", display_name="loss_curve"),
                io.String.Output("text", display_name="text"),
            ],
        )

    @classmethod
    @checked("class_images")
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        memory: ConceptMemory,
        concept: Concept,
        steps: int,
        rate: float,
        seed: int,
        preview_prompt: str,
        preview_every: int,
        class_images: Sequence[Tensor] = (),
        **settings: Any,
    ) -> io.NodeOutput:
        queue.check_what_follows(cls)
        further = Further(
            steps,
            seed,
            rate,
            Preview(preview_prompt.strip(), preview_every),
            chosen_of(Limits, settings),
            chosen_of(MemoryUse, settings),
        )
        pictures = [picture for batch in class_images for picture in batch]
        done = refine(Loaded(model, clip, vae), concept, memory, further, pictures)
        learned = done.memory.concepts[-1]
        losses = {name: values.tolist() for name, values in learned.losses.items()}
        curve = loss_curve(losses, f"{concept.token}: loss per step, the first learning included")
        text = "\n\n".join(
            [
                *done.notes,
                f"`{concept.token}` was learned further, and is the memory's latest concept now. To save it "
                "over the file it came from, switch overwrite on in Save Concept Memory.",
                done.memory.summary(),
            ]
        )
        return io.NodeOutput(done.memory, curve, text, ui=ui.PreviewText(text))
