"""ChooseMethod: any method of the registry, to compare with or to use in place of the pack's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io, ui

from ..cns_core.concept import Concept
from ..cns_core.host import queue
from ..cns_core.host.prepare import prepare
from ..cns_core.host.progress import Progress
from ..cns_core.memory import ConceptMemory
from ..cns_core.methods import METHODS
from ..cns_core.within import within
from .own_settings import (
    BySetting,
    chosen_settings,
    given_of,
    settings_of,
    socket_of_methods,
    told_settings,
)
from .sockets import ConceptSocket, MemorySocket, NeuronsSocket, schema
from .values import checked

# Select Concept Neurons has these, with all of their settings.
_ELSEWHERE = ("directions", "cns", "guarded neurons")
OFFERED = {name: method for name, method in METHODS.items() if name not in _ELSEWHERE}

# Those of several methods; then each method's own, in the order of the registry. A graph keeps the values of
# widgets by their places, so that new ones go to the end.
_FIRST = ("weights", "rank", "alpha", "weight_lr", "keep_earlier")
_LATER = ("factors",)


class ChooseMethod(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ChooseMethod",
            display_name="Choose Method",
            description="Learn by another method of the field, in place of Select Concept Neurons: LoRA, "
            "DreamBooth, Textual Inversion, Custom Diffusion and the continual ones.",
            search_aliases=[
                "lora",
                "dreambooth",
                "textual inversion",
                "custom diffusion",
                "loha",
                "lokr",
                "oft",
                "boft",
                "l2dm",
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint's MODEL, without a memory applied."),
                io.Clip.Input("clip", tooltip="The CLIP of the same checkpoint."),
                ConceptSocket.Input("concept", tooltip="From Load Concept Images."),
                io.Combo.Input(
                    "method",
                    options=list(OFFERED),
                    default="lora",
                    tooltip="What learns the concept. docs/methods.md tells of each: its paper, its formula, "
                    "what is kept of it.",
                ),
                MemorySocket.Input(
                    "memory",
                    optional=True,
                    tooltip="What was learned before. The same memory as Continual Train's.",
                ),
                *(socket_of_methods(name, by_method) for name, by_method in _settings().items()),
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
        method: str,
        memory: ConceptMemory | None = None,
        **settings: Any,
    ) -> io.NodeOutput:
        queue.check_what_follows(cls)
        chosen = OFFERED[method]
        given = given_of(settings)
        selection, training = (chosen_settings(kind, given) for kind in (chosen.Selection, chosen.Training))
        with Progress(1) as progress:
            plan = prepare(model, clip, concept, memory, chosen, selection, progress.phase)
        plan = replace(plan, training=training)
        left = {} if memory is None else memory.left()
        earlier = {token: within(change, plan.prepared.layout) for token, change in left.items()}
        report = plan.prepared.report(plan.parameters, earlier)
        told = told_settings(method, {**vars(selection), **vars(training)}, given)
        text = "\n\n".join([*plan.notes, report, "\n".join(f"- {line}" for line in told)])
        return io.NodeOutput(plan, plan.prepared.picture(earlier), text, ui=ui.PreviewText(text))


def _settings() -> BySetting:
    found = settings_of({name: (one.Selection, one.Training) for name, one in OFFERED.items()})
    rest = (name for name in found if name not in (*_FIRST, *_LATER))
    return {name: found[name] for name in (*_FIRST, *rest, *_LATER)}
