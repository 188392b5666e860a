"""ConceptMatrix: every concept drawn and scored as of every stage, to see what is forgotten."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..cns_core.concept import Concept
from ..cns_core.evaluation.forgetting import as_csv
from ..cns_core.evaluation.matrix import (
    DEFAULT_PLAIN_PROMPTS,
    DEFAULT_PROMPTS,
    MatrixSettings,
    concept_prompts,
)
from ..cns_core.evaluation.matrix import plain_prompts as without_concepts
from ..cns_core.evaluation.matrix_plots import course, heat_map
from ..cns_core.evaluation.matrix_report import report
from ..cns_core.host.matrix import MatrixRequest, measure
from ..cns_core.host.output_files import check_output_name, written
from ..cns_core.host.paths import PHOTO_CLIP
from ..cns_core.host.references import fingerprint, folder_lines, references
from ..cns_core.host.types import Loaded
from ..cns_core.memory import ConceptMemory
from .sockets import ConceptSocket, MemorySocket, chosen_of, schema, sockets_of
from .values import checked

_CONCEPTS = ("concept", *(f"concept_{number}" for number in range(2, 8)))


class ConceptMatrix(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ConceptMatrix",
            display_name="Concept Matrix",
            description="Draws every concept as of every stage of a memory and scores it: what is "
            "learned, what is forgotten, what became of everything else. Pictures are kept: after Cancel "
            "queue again to go on.",
            search_aliases=["forgetting", "evaluate memory", "benchmark", "score matrix"],
            is_output_node=True,
            inputs=[
                io.Model.Input(
                    "model", tooltip="The checkpoint the memory was made on, without a memory applied."
                ),
                io.Clip.Input("clip", tooltip="Its CLIP."),
                io.Vae.Input("vae", tooltip="Its VAE."),
                MemorySocket.Input("memory", tooltip="From Continual Train or Load Concept Memory."),
                io.String.Input(
                    "prompts",
                    default=DEFAULT_PROMPTS,
                    multiline=True,
                    tooltip="One a line, drawn for every concept; {} stands for its token.",
                ),
                io.String.Input(
                    "plain_prompts",
                    default=DEFAULT_PLAIN_PROMPTS,
                    multiline=True,
                    tooltip="One a line, without a concept: shows what became of everything else. Empty: not "
                    "measured.",
                ),
                *sockets_of(MatrixSettings, ["pictures", "seed", "steps", "cfg", "resolution"]),
                io.String.Input(
                    "clip_model",
                    default=PHOTO_CLIP,
                    tooltip="The CLIP that judges: a Hugging Face id, fetched at first use "
                    "(600 MB for the default), or a transformers CLIP folder below models/.",
                ),
                io.String.Input(
                    "filename",
                    default="concept_matrix",
                    tooltip="Of the CSV file in ComfyUI's output directory. Files are numbered; none is "
                    "overwritten.",
                ),
                io.String.Input(
                    "reference_folders",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Pictures to compare with, one concept a line: '<my-dog>: folder', the folder "
                    "below ComfyUI's input directory.",
                ),
                *(
                    ConceptSocket.Input(
                        name,
                        optional=True,
                        tooltip="A concept of the memory; its pictures are compared with.",
                    )
                    for name in _CONCEPTS
                ),
            ],
            outputs=[
                io.Image.Output("heat_map", display_name="heat_map"),
                io.Image.Output("curve", display_name="curve"),
                io.Image.Output("grid", display_name="grid"),
                io.String.Output("text", display_name="text"),
                io.String.Output("csv", display_name="csv"),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        prompts: str | None = None,
        plain_prompts: str | None = None,
        filename: str | None = None,
        reference_folders: str | None = None,
    ) -> bool | str:
        """None is what comes from another node."""
        checks = (
            (concept_prompts, prompts),
            (without_concepts, plain_prompts),
            (check_output_name, filename),
            (folder_lines, reference_folders),
        )
        try:
            for check, value in checks:
                if value is not None:
                    check(value)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, reference_folders: str | None = None, **_: Any) -> str:
        """Changes exactly when a file of the folders does."""
        return fingerprint(reference_folders or "")

    @classmethod
    @checked()
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        memory: ConceptMemory,
        prompts: str,
        plain_prompts: str,
        clip_model: str,
        filename: str,
        reference_folders: str = "",
        **others: Any,
    ) -> io.NodeOutput:
        check_output_name(filename)
        concepts: list[Concept] = [others[name] for name in _CONCEPTS if others.get(name) is not None]
        measured = measure(
            MatrixRequest(
                Loaded(model, clip, vae),
                memory,
                prompts,
                plain_prompts,
                references(memory, concepts, reference_folders),
                clip_model,
                chosen_of(MatrixSettings, others),
            )
        )
        shown, table = measured.scores.shown(), as_csv(measured.scores.matrices(), measured.scores.guard)
        told = [*measured.notes, written(filename, ".csv", table)]
        text = "\n\n".join([report(measured.grid, measured.scores), "\n".join(f"- {line}" for line in told)])
        return io.NodeOutput(
            heat_map(shown), course(shown), measured.sheet(), text, table, ui=ui.PreviewText(text)
        )
