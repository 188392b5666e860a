"""ChooseMethod: any method of the registry, to compare with or to use in place of the pack's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from comfy_api.latest import io, ui

from ..cns_core.concept import Concept
from ..cns_core.host import queue
from ..cns_core.host.prepare import prepare
from ..cns_core.host.progress import Progress
from ..cns_core.memory import ConceptMemory
from ..cns_core.method import Method
from ..cns_core.methods import METHODS
from ..cns_core.settings import Described, described
from ..cns_core.within import within
from .sockets import ConceptSocket, MemorySocket, NeuronsSocket, schema
from .values import checked

# Select Concept Neurons has these, with all of their settings.
_ELSEWHERE = ("directions", "cns", "guarded neurons")
OFFERED = {name: method for name, method in METHODS.items() if name not in _ELSEWHERE}

_OWN = "the method's own"  # value, of a setting that is a choice
_OWN_NUMBER = -1

# Those of several methods; then each method's own, in the order of the registry. A graph keeps the values of
# widgets by their places, so that new ones go to the end.
_FIRST = ("weights", "rank", "alpha", "weight_lr", "keep_earlier")


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
                *(_socket(name, by_method) for name, by_method in _settings().items()),
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
        given = {name: value for name, value in settings.items() if not _is_own(value)}
        selection, training = (_chosen(kind, given) for kind in (chosen.Selection, chosen.Training))
        with Progress(1) as progress:
            plan = prepare(model, clip, concept, memory, chosen, selection, progress.phase)
        plan = replace(plan, training=training)
        left = {} if memory is None else memory.left()
        earlier = {token: within(change, plan.prepared.layout) for token, change in left.items()}
        report = plan.prepared.report(plan.parameters, earlier)
        text = "\n\n".join([*plan.notes, report, _told(chosen, {**vars(selection), **vars(training)}, given)])
        return io.NodeOutput(plan, plan.prepared.picture(earlier), text, ui=ui.PreviewText(text))


def _settings() -> dict[str, dict[str, tuple[Any, Described]]]:
    """By setting, in which methods it is, with its default and what it is there."""
    found: dict[str, dict[str, tuple[Any, Described]]] = {}
    for method in OFFERED.values():
        for kind in (method.Selection, method.Training):
            for name, setting in described(kind).items():
                found.setdefault(name, {})[method.name] = setting
    return {name: found[name] for name in (*_FIRST, *(n for n in found if n not in _FIRST))}


def _socket(name: str, by_method: Mapping[str, tuple[Any, Described]]) -> Any:
    """A setting of all the methods that have it. Each has a value of its own for it, until one is given."""
    default, what = next(iter(by_method.values()))
    common: dict[str, Any] = {"optional": True, "tooltip": _tooltip(by_method)}
    if what.choices or isinstance(default, bool):
        choices = [c for _, w in (by_method.values()) for c in w.choices] or ["yes", "no"]
        socket = io.Combo.Input(name, options=[_OWN, *dict.fromkeys(choices)], default=_OWN, **common)
    elif isinstance(default, str):
        socket = io.String.Input(name, default="", multiline=True, **common)
    else:
        high = max(w.high or 0 for _, w in by_method.values())
        if isinstance(default, int):
            # The editor would otherwise add a control that changes a seed after each run.
            common |= {"control_after_generate": False} if name == "seed" else {}
            socket = io.Int.Input(name, default=_OWN_NUMBER, min=_OWN_NUMBER, max=int(high), **common)
        else:
            digits = [w.digits for _, w in by_method.values()]
            round_to = None if None in digits else 10.0 ** -max(d for d in digits if d is not None)
            low, own = float(_OWN_NUMBER), float(_OWN_NUMBER)
            socket = io.Float.Input(
                name, default=own, min=low, max=float(high), step=what.step, round=round_to, **common
            )
    # For the page, which shows the settings of the chosen method alone.
    socket.extra_dict = {**(socket.extra_dict or {}), "of_methods": list(by_method)}
    return socket


def _tooltip(by_method: Mapping[str, tuple[Any, Described]]) -> str:
    """What a setting is in each method, and the method's own value."""
    methods: dict[str, list[str]] = {}
    for method, (_, what) in by_method.items():
        methods.setdefault(what.help, []).append(method)
    told = [f"{', '.join(names)}: {help}" for help, names in methods.items()]
    own = ", ".join(f"{method} {_shown(default)}" for method, (default, _) in by_method.items())
    number = any(isinstance(d, int | float) and not isinstance(d, bool) for d, _ in by_method.values())
    return " ".join([*told, f"{_OWN_NUMBER if number else _OWN}: {own}."])


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return repr(value) if value == "" else f"{value:g}" if isinstance(value, float) else str(value)


def _is_own(value: Any) -> bool:
    return value in (_OWN, "") or (not isinstance(value, str) and value == _OWN_NUMBER)


def _chosen(kind: type[Any], given: Mapping[str, Any]) -> Any:
    known = described(kind)
    yes_or_no = {name: given[name] == "yes" for name in known if given.get(name) in ("yes", "no")}
    return kind(**{name: value for name, value in {**given, **yes_or_no}.items() if name in known})


def _told(method: Method, used: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """The settings as they are used, and which of those given are another method's."""
    lines = [
        f"{method.name}, by " + (", ".join(f"{n} {_shown(v)}" for n, v in used.items()) or "no settings")
    ]
    if strange := sorted(set(given) - set(used)):
        lines.append(f"{', '.join(strange)}: of other methods, and not used by {method.name}")
    return "\n".join(f"- {line}" for line in lines)
