"""SampleConcept and EditConcept: new concepts out of a space of many that were learned alone."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from comfy_api.latest import io, ui

from ..cns_core.host.progress import Progress
from ..cns_core.host.space import digest_of, space_of
from ..cns_core.memory import ConceptMemory
from ..cns_core.space.making import Made, edit, sample
from ..cns_core.space.settings import EditSettings, SampleSettings
from .sockets import MemorySocket, chosen_of, schema, sockets_of
from .values import checked


class SampleConcept(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SampleConcept",
            display_name="Sample Concept",
            description="Draws a concept that was never learned from the space of many that were: 40 or more "
            "of one kind, by one method, each learned alone (weights2weights).",
            search_aliases=["weights2weights", "w2w", "random concept", "concept space", "PCA"],
            inputs=[
                _files(),
                io.String.Input(
                    "name", default="sample", tooltip="Of the new concept; its token is <sample>."
                ),
                *_settings(SampleSettings, ("seed", "distance")),
                _memory(),
            ],
            outputs=_outputs("sampled"),
        )

    @classmethod
    def fingerprint_inputs(cls, files: str | None, **_: Any) -> str:
        return digest_of(files or "")

    @classmethod
    @checked()
    def execute(
        cls, files: str, name: str, memory: ConceptMemory | None = None, **settings: Any
    ) -> io.NodeOutput:
        members = space_of(memory, files)
        with Progress(1) as progress:
            return _output(sample(members, name, chosen_of(SampleSettings, settings), progress.phase))


class EditConcept(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        tokens = "Names or tokens of concepts of the space, between commas or line ends"
        return schema(
            node_id="EditConcept",
            display_name="Edit Concept",
            description="Moves a concept along a direction of the space of many: from what some of them have "
            "in common to what others have, as far as you like (weights2weights).",
            search_aliases=["weights2weights", "w2w", "concept slider", "concept space", "attribute"],
            inputs=[
                _files(),
                io.String.Input(
                    "concept", default="", tooltip="The one to move: its name or token, such as <face-1>."
                ),
                io.String.Input(
                    "more_like", default="", multiline=True, tooltip=f"{tokens}, that have what you look for."
                ),
                io.String.Input(
                    "less_like",
                    default="",
                    multiline=True,
                    tooltip=f"{tokens}, that lack it. Empty: all the others.",
                ),
                *_settings(EditSettings, ("strength",)),
                io.String.Input(
                    "name",
                    default="",
                    tooltip="Of what comes of it, from which its token is made. Empty: the concept's own, so "
                    "that prompts stay as they are.",
                ),
                _memory(),
                MemorySocket.Input(
                    "other",
                    optional=True,
                    tooltip="A memory that holds the concept, where it is none of the space: a sample, or "
                    "one that was moved already.",
                ),
            ],
            outputs=_outputs("edited"),
        )

    @classmethod
    def fingerprint_inputs(cls, files: str | None, **_: Any) -> str:
        return digest_of(files or "")

    @classmethod
    @checked()
    def execute(
        cls,
        files: str,
        concept: str,
        more_like: str,
        less_like: str,
        name: str,
        memory: ConceptMemory | None = None,
        other: ConceptMemory | None = None,
        **settings: Any,
    ) -> io.NodeOutput:
        members = space_of(memory, files)
        if other is None:
            moved = members.concepts[members.place(concept.strip())]
        else:
            moved = other.concept(concept.strip())
            members.check_fits(moved, other.base)
        chosen = chosen_of(EditSettings, settings)
        with Progress(1) as progress:
            return _output(edit(members, moved, more_like, less_like, name, chosen, progress.phase))


def _files() -> Any:
    return io.String.Input(
        "files",
        default="",
        multiline=True,
        tooltip="Files in models/concept_memory/ whose concepts are the space, one a line; * stands for "
        "anything: faces/*.",
    )


def _memory() -> Any:
    return MemorySocket.Input(
        "memory", optional=True, tooltip="Concepts of the space, besides those of the files."
    )


def _settings(settings: type[Any], first: tuple[str, ...]) -> list[Any]:
    """Sockets of all settings, some of them first."""
    rest = [field.name for field in fields(settings) if field.name not in first]
    return sockets_of(settings, [*first, *rest])


def _outputs(name: str) -> list[Any]:
    return [
        MemorySocket.Output(name, display_name="memory"),
        io.String.Output("text", display_name="text"),
    ]


def _output(made: Made) -> io.NodeOutput:
    told = "\n".join(f"- {line}" for line in made.lines)
    text = f"{told}\n\n{made.memory.summary()}"
    return io.NodeOutput(made.memory, text, ui=ui.PreviewText(text))
