"""EraseConcept: takes words out of a model, by a memory with one more entry that has no token."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..cns_core.erasures import ERASURES
from ..cns_core.erasures.kept import Kept
from ..cns_core.erasures.uce import Uce, UceSettings
from ..cns_core.erasures.wording import ToErase
from ..cns_core.host.erase import erase
from ..cns_core.host.progress import Progress
from ..cns_core.memory import ConceptMemory
from ..cns_core.settings import described
from .own_settings import (
    chosen_settings,
    for_methods,
    given_of,
    settings_of,
    socket_of_methods,
    told_settings,
)
from .sockets import MemorySocket, schema, sockets_of
from .values import checked

# A graph keeps the values of widgets by their places: those of before there were several methods stay first.
_OF_ALL = list(described(Kept))
_OF_UCE = [name for name in described(UceSettings) if name not in _OF_ALL]


class EraseConcept(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EraseConcept",
            display_name="Erase Concept",
            description="Leads words elsewhere, so that the model no longer draws what they name, and keeps "
            "all else. Forget Concept undoes it.",
            search_aliases=[
                "unlearn",
                "remove concept",
                "concept erasure",
                "censor",
                "UCE",
                "ESD",
                "SalUn",
                "selective amnesia",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint's MODEL, without a memory applied."),
                io.Clip.Input("clip", tooltip="The CLIP of the same checkpoint."),
                io.String.Input(
                    "words",
                    default="",
                    multiline=True,
                    tooltip="What to erase, a word or phrase a line: leopard. Write its other names too.",
                ),
                io.String.Input(
                    "instead",
                    default="",
                    multiline=True,
                    tooltip="What is drawn in its place: one word for all, or one a line for each. Empty: as "
                    "if the words were not there.",
                ),
                *sockets_of(UceSettings, _OF_ALL),
                *(for_methods(socket, [Uce.name]) for socket in sockets_of(UceSettings, _OF_UCE)),
                MemorySocket.Input(
                    "memory",
                    optional=True,
                    tooltip="What was learned before. It stays as it is, and the erasure becomes its latest "
                    "entry.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(ERASURES),
                    default=Uce.name,
                    optional=True,
                    tooltip="How. uce: by a formula, in seconds. The others train, in minutes: esd guides "
                    "the model away from the words, salun trains the entries that the words ask for "
                    "most, selective amnesia has the words name other pictures and holds what matters to the "
                    "rest.",
                ),
                *_of_training(),
            ],
            outputs=[
                MemorySocket.Output("erased", display_name="memory"),
                io.String.Output("text", display_name="text"),
            ],
        )

    @classmethod
    @checked()
    def execute(
        cls,
        model: Any,
        clip: Any,
        words: str,
        instead: str,
        memory: ConceptMemory | None = None,
        method: str = Uce.name,
        **settings: Any,
    ) -> io.NodeOutput:
        what, by, given = ToErase.of(words, instead), ERASURES[method], given_of(settings)
        chosen = chosen_settings(by.Settings, given)
        with Progress(1) as progress:
            done = erase(model, clip, memory, what, chosen, progress, by)
        used, set_here = (
            {name: value for name, value in values.items() if name not in (*_OF_ALL, *_OF_UCE)}
            for values in (vars(chosen), given)
        )
        lines = [*done.lines, *(told_settings(method, used, set_here) if used or set_here else [])]
        told = "\n".join(f"- {line}" for line in lines)
        text = f"{told}\n\n{done.memory.summary()}"
        return io.NodeOutput(done.memory, text, ui=ui.PreviewText(text))


def _of_training() -> list[Any]:
    """Sockets of the settings that the methods have that train."""
    found = settings_of({name: (by.Settings,) for name, by in ERASURES.items()})
    rest = [name for name in found if name not in (*_OF_ALL, *_OF_UCE)]
    return [socket_of_methods(name, found[name]) for name in rest]
