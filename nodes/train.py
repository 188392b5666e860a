"""ContinualTrain: learns one concept on top of what the memory holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..cns_core.concept import Concept
from ..cns_core.evaluation.plots import loss_curve
from ..cns_core.host import queue
from ..cns_core.host.kept import Limits
from ..cns_core.host.learn import Lesson, Preview, learn
from ..cns_core.host.training_memory import MemoryUse
from ..cns_core.host.types import Loaded
from ..cns_core.memory import ConceptMemory
from ..cns_core.method import Plan
from ..cns_core.methods import METHODS
from ..cns_core.priors import PRIORS
from ..cns_core.settings import TrainSettings, described
from .neurons import OFFERED
from .sockets import ConceptSocket, MemorySocket, NeuronsSocket, chosen_of, schema, sockets_of
from .values import checked

_NEURONS, _DIRECTIONS = METHODS["cns"].Training, METHODS["directions"].Training
_WAYS = {way: method.Training for way, method in OFFERED.items()}
_AUTOMATIC = "automatic"


class ContinualTrain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        rare = ("gradient_accumulation", "lr_schedule", "warmup_steps", "min_snr_gamma", "masked_loss")
        rare_of_directions = ("directions", "guard", "token_first", "token_after", "moves")
        return schema(
            node_id="ContinualTrain",
            display_name="Continual Train",
            description="Trains what may move for the concept, and its token; what earlier concepts need is "
            "left alone. Cancel keeps what was learned: queue the same graph again to go on.",
            search_aliases=["train", "personalise", "dreambooth", "textual inversion"],
            is_output_node=True,
            is_input_list=True,
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The checkpoint's MODEL, without a memory applied. It is left unchanged."
                ),
                io.Clip.Input("clip", tooltip="The CLIP of the same checkpoint."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                ConceptSocket.Input("concept", tooltip="From Load Concept Images."),
                NeuronsSocket.Input(
                    "neurons", tooltip="From Select Concept Neurons or Choose Method, for this concept."
                ),
                *sockets_of(TrainSettings, ["steps"]),
                *sockets_of(_NEURONS, ["neuron_lr"], prefix="For neurons. ", ways=_WAYS),
                *sockets_of(TrainSettings, ["token_lr", "batch_size", "seed"]),
                io.Combo.Input(
                    "prior",
                    options=[_AUTOMATIC, *PRIORS],
                    default=_AUTOMATIC,
                    tooltip=f"{described(TrainSettings)['prior'][1].help} automatic: given class images "
                    "where some are connected, else image-free for neurons and none for directions.",
                ),
                *sockets_of(TrainSettings, ["prior_weight"]),
                io.String.Input(
                    "preview_prompt",
                    default="",
                    multiline=True,
                    tooltip="Drawn while training, to watch it learn. {} stands for the new token.",
                ),
                io.Int.Input(
                    "preview_every",
                    default=100,
                    min=0,
                    max=100_000,
                    tooltip="Steps between previews; 0 draws none.",
                ),
                *sockets_of(_NEURONS, ["keep_earlier", "keep_base"], prefix="For neurons. ", ways=_WAYS),
                *sockets_of(TrainSettings, [*rare, "class_image_count"]),
                MemorySocket.Input(
                    "memory", optional=True, tooltip="What was learned before. Unplugged: start a new memory."
                ),
                io.Image.Input(
                    "class_images",
                    optional=True,
                    tooltip="For 'given class images': ordinary pictures of the class.",
                ),
                *sockets_of(
                    _DIRECTIONS,
                    ["least_gain", "direction_lr", *rare_of_directions],
                    prefix="For directions. ",
                    optional=True,
                    ways=_WAYS,
                ),
                *sockets_of(Limits, ["keep_gb", "keep_days"], optional=True),
                *sockets_of(TrainSettings, ["vectors"], optional=True),
                *sockets_of(MemoryUse, ["checkpointing"], optional=True),
            ],
            outputs=[
                MemorySocket.Output("learned", display_name="memory"),
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
        concept: Concept,
        neurons: Plan,
        preview_prompt: str,
        preview_every: int,
        memory: ConceptMemory | None = None,
        class_images: Sequence[Tensor] = (),
        **settings: Any,
    ) -> io.NodeOutput:
        queue.check_what_follows(cls)
        if settings["prior"] == _AUTOMATIC:
            settings["prior"] = "given class images" if class_images else neurons.method.prior
        lesson = Lesson(
            Loaded(model, clip, vae),
            concept,
            neurons,
            memory,
            tuple(picture for batch in class_images for picture in batch),
            chosen_of(TrainSettings, settings),
            neurons.training or chosen_of(neurons.method.Training, settings),
            Preview(preview_prompt.strip(), preview_every),
            chosen_of(Limits, settings),
            memory_use=chosen_of(MemoryUse, settings),
        )
        learned = learn(lesson)
        losses = {name: values.tolist() for name, values in learned.memory.concepts[-1].losses.items()}
        curve = loss_curve(losses, f"{concept.token}: loss per step")
        outcome = neurons.prepared.outcome(learned.memory.concepts[-1].change)
        text = "\n\n".join(filter(None, [*learned.notes, outcome, learned.memory.summary()]))
        return io.NodeOutput(learned.memory, curve, text, ui=ui.PreviewText(text))
