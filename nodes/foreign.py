"""ImportConcept: what other programs have learned, as a concept of a memory."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..cns_core.concept import KINDS
from ..cns_core.host import paths
from ..cns_core.host.foreign import Words, imported
from ..cns_core.host.progress import Progress
from ..cns_core.memory import ConceptMemory
from .sockets import MemorySocket, schema
from .values import checked

_NONE = "(none)"


class ImportConcept(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ImportConcept",
            display_name="Import Concept",
            description="Makes a concept of a textual-inversion embedding, with the weights of Custom "
            "Diffusion if there are some, so that later concepts are kept out of its way.",
            search_aliases=["textual inversion", "embedding to concept", "custom diffusion"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint it was learned on."),
                io.Clip.Input("clip", tooltip="Its CLIP."),
                io.Combo.Input(
                    "embedding",
                    options=paths.model_files("embeddings"),
                    tooltip="A .safetensors file in models/embeddings, of one vector or several.",
                ),
                io.Combo.Input(
                    "weights",
                    options=[_NONE, *paths.model_files("loras")],
                    default=_NONE,
                    tooltip="A file of Custom Diffusion in models/loras, as diffusers writes it "
                    "(pytorch_custom_diffusion_weights.safetensors).",
                ),
                io.String.Input(
                    "name", default="my dog", tooltip="Name of the concept, for lists and files."
                ),
                io.String.Input(
                    "class_word",
                    default="dog",
                    tooltip="The ordinary word for what it is: dog, mug, watercolor.",
                ),
                io.Combo.Input(
                    "kind",
                    options=list(KINDS),
                    default="subject",
                    tooltip="Chooses the captions that tell of it.",
                ),
                io.String.Input(
                    "token",
                    default="",
                    tooltip="What to write in prompts, such as <my-dog>. Empty: made from the name.",
                ),
                MemorySocket.Input(
                    "memory", optional=True, tooltip="What it is added to. Unplugged: start a new memory."
                ),
            ],
            outputs=[
                MemorySocket.Output("extended", display_name="memory"),
                io.String.Output("text", display_name="text"),
            ],
        )

    @classmethod
    def validate_inputs(cls, embedding: str | None, weights: str | None) -> bool | str:
        try:
            if embedding is not None:  # else it comes from another node
                paths.model_file("embeddings", embedding)
            if weights is not None and weights != _NONE:
                paths.model_file("loras", weights)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, embedding: str, weights: str, **_: Any) -> str:
        files = [paths.model_file("embeddings", embedding)]
        if weights != _NONE:
            files.append(paths.model_file("loras", weights))
        return repr([(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files])

    @classmethod
    @checked()
    def execute(
        cls,
        model: Any,
        clip: Any,
        embedding: str,
        weights: str,
        name: str,
        class_word: str,
        kind: str,
        token: str,
        memory: ConceptMemory | None = None,
    ) -> io.NodeOutput:
        with Progress(1) as progress:
            extended, lines = imported(
                model,
                clip,
                memory,
                Words(name, token, class_word, kind),
                embedding,
                None if weights == _NONE else weights,
                progress.phase,
            )
        told = "\n".join(f"- {line}" for line in lines)
        text = f"{told}\n\n{extended.summary()}"
        return io.NodeOutput(extended, text, ui=ui.PreviewText(text))
