"""ContinualTrain: learns one concept on top of what the memory holds."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..cns_core.concept import Concept
from ..cns_core.evaluation.plots import loss_curve
from ..cns_core.host.learn import Lesson, Preview, learn
from ..cns_core.host.types import Loaded
from ..cns_core.memory import ConceptMemory
from ..cns_core.method import Plan
from ..cns_core.methods import METHODS
from ..cns_core.settings import TrainSettings
from .sockets import ConceptSocket, MemorySocket, NeuronsSocket, schema, sockets_of

_METHOD = METHODS["cns"]


class ContinualTrain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        rare = ("gradient_accumulation", "lr_schedule", "warmup_steps", "min_snr_gamma", "masked_loss")
        return schema(
            node_id="ContinualTrain",
            display_name="Continual Train",
            description="Trains the concept's neurons and its token, holding still what earlier concepts "
            "need. Cancel keeps what was learned: queue the same graph again to go on.",
            search_aliases=["train", "personalise", "dreambooth", "textual inversion"],
            is_output_node=True,
            inputs=[
                io.Model.Input(
                    "model", tooltip="The checkpoint's MODEL, without a memory applied. It is left unchanged."
                ),
                io.Clip.Input("clip", tooltip="The CLIP of the same checkpoint."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                ConceptSocket.Input("concept", tooltip="From Load Concept Images."),
                NeuronsSocket.Input("neurons", tooltip="From Select Concept Neurons, for this concept."),
                *sockets_of(TrainSettings, ["steps"]),
                *sockets_of(_METHOD.Training, ["neuron_lr"]),
                *sockets_of(TrainSettings, ["token_lr", "batch_size", "seed", "prior", "prior_weight"]),
                io.String.Input(
                    "preview_prompt",
                    default="",
                    multiline=True,
                    tooltip="Drawn while training, to watch it learn. May use the new token.",
                ),
                io.Int.Input(
                    "preview_every",
                    default=100,
                    min=0,
                    max=100_000,
                    tooltip="Steps between previews; 0 draws none.",
                ),
                *sockets_of(_METHOD.Training, ["keep_earlier", "keep_base"]),
                *sockets_of(TrainSettings, [*rare, "class_image_count"]),
                MemorySocket.Input(
                    "memory", optional=True, tooltip="What was learned before. Unplugged: start a new memory."
                ),
                io.Image.Input(
                    "class_images",
                    optional=True,
                    tooltip="For 'given class images': ordinary pictures of the class.",
                ),
            ],
            outputs=[
                MemorySocket.Output("learned", display_name="memory"),
                io.Image.Output("loss_curve", display_name="loss_curve"),
                io.String.Output("text", display_name="text"),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        concept: Concept,
        neurons: Plan,
        preview_prompt: str,
        preview_every: int,
        memory: ConceptMemory | None = None,
        class_images: Tensor | None = None,
        **settings: Any,
    ) -> io.NodeOutput:
        of_method = {f.name: settings.pop(f.name) for f in fields(neurons.method.Training)}
        lesson = Lesson(
            Loaded(model, clip, vae),
            concept,
            neurons,
            memory,
            class_images,
            TrainSettings(**settings),
            neurons.method.Training(**of_method),
            Preview(preview_prompt.strip(), preview_every),
        )
        learned = learn(lesson)
        losses = {name: values.tolist() for name, values in learned.memory.concepts[-1].losses.items()}
        curve = loss_curve(losses, f"{concept.token}: loss per step")
        text = "\n\n".join([*learned.notes, learned.memory.summary()])
        return io.NodeOutput(learned.memory, curve, text, ui=ui.PreviewText(text))
