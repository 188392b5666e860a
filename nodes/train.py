"""ContinualTrain: learns one concept on top of what the memory holds."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..cns_core.concept import Concept
from ..cns_core.host.learn import Preview, learn
from ..cns_core.host.select import Neurons
from ..cns_core.memory import ConceptMemory
from ..cns_core.plots import loss_curve
from ..cns_core.settings import LR_SCHEDULES, PRIORS, TrainSettings
from .sockets import ConceptSocket, MemorySocket, NeuronsSocket, advanced, schema

_DEFAULTS = TrainSettings()


class ContinualTrain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ContinualTrain",
            display_name="Continual Train",
            description="Trains the concept's neurons and its token, holding still what earlier concepts "
            "need. Cancel keeps what was "
            "learned: queue the same graph again to go on.",
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
                io.Int.Input(
                    "steps",
                    default=_DEFAULTS.steps,
                    min=1,
                    max=100_000,
                    tooltip="Optimizer steps. 500 suit a handful of photos on SD 1.5.",
                ),
                io.Float.Input(
                    "neuron_lr",
                    default=_DEFAULTS.neuron_lr,
                    min=0.0,
                    max=1.0,
                    step=1e-6,
                    round=1e-9,
                    tooltip="Learning rate of the neurons. Too low: little likeness. Too high: artefacts, "
                    "or the loss becomes NaN.",
                ),
                io.Float.Input(
                    "token_lr",
                    default=_DEFAULTS.token_lr,
                    min=0.0,
                    max=1.0,
                    step=1e-5,
                    round=1e-9,
                    tooltip="Learning rate of the token.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=_DEFAULTS.batch_size,
                    min=1,
                    max=64,
                    tooltip="Concept images per step.",
                ),
                io.Int.Input(
                    "seed",
                    default=_DEFAULTS.seed,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=False,
                    tooltip="The same seed and settings give the same memory.",
                ),
                io.Combo.Input(
                    "prior",
                    options=list(PRIORS),
                    default=_DEFAULTS.prior,
                    tooltip="Keeps the class as it was. image-free: the untouched model's own prediction is "
                    "the target (no images needed); "
                    "drawn: class images by the base model, drawn once and kept; given: connect "
                    "class_images; none.",
                ),
                io.Float.Input(
                    "prior_weight",
                    default=_DEFAULTS.prior_weight,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Weight of the prior's loss.",
                ),
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
                advanced(
                    io.Float.Input(
                        "keep_earlier",
                        default=_DEFAULTS.keep_earlier,
                        min=0.0,
                        max=1e6,
                        step=1e-4,
                        round=1e-9,
                        tooltip="L_reg, first term: how hard neurons shared with earlier concepts are held "
                        "to their values.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "keep_base",
                        default=_DEFAULTS.keep_base,
                        min=0.0,
                        max=1e6,
                        step=1e-4,
                        round=1e-9,
                        tooltip="L_reg, second term: how hard the trained neurons are held to the base "
                        "model. Lower it when a concept stays weak.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "gradient_accumulation",
                        default=_DEFAULTS.gradient_accumulation,
                        min=1,
                        max=256,
                        tooltip="Batches per optimizer step: a larger batch in the same memory.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "lr_schedule",
                        options=list(LR_SCHEDULES),
                        default=_DEFAULTS.lr_schedule,
                        tooltip="Learning rates over time.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "warmup_steps",
                        default=_DEFAULTS.warmup_steps,
                        min=0,
                        max=100_000,
                        tooltip="Steps over which the learning rates rise.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "min_snr_gamma",
                        default=_DEFAULTS.min_snr_gamma,
                        min=0.0,
                        max=1000.0,
                        step=0.5,
                        tooltip="min-SNR weighting of noise levels; 5 is usual, 0 is off.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "masked_loss",
                        default=_DEFAULTS.masked_loss,
                        tooltip="Learn only from where the pictures' masks are white.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "class_image_count",
                        default=_DEFAULTS.class_image_count,
                        min=1,
                        max=10_000,
                        tooltip="For 'drawn class images': how many.",
                    )
                ),
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
        neurons: Neurons,
        preview_prompt: str,
        preview_every: int,
        memory: ConceptMemory | None = None,
        class_images: Tensor | None = None,
        **settings: Any,
    ) -> io.NodeOutput:
        preview = Preview(preview_prompt.strip(), preview_every)
        learned = learn(
            model, clip, vae, concept, neurons, memory, class_images, TrainSettings(**settings), preview
        )
        losses = learned.memory.concepts[-1].losses
        names = ("diffusion", "prior", "L_reg")
        curve = loss_curve(
            {n: losses[:, i].tolist() for i, n in enumerate(names)}, f"{concept.token}: loss per step"
        )
        text = "\n\n".join([*learned.notes, learned.memory.summary()])
        return io.NodeOutput(learned.memory, curve, text, ui=ui.PreviewText(text))
