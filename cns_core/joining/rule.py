"""What a rule of joining is.

Of each memory i there are the change D_i `(out, text_dim)` that it makes to a projection, and the second
moment C_i `(text_dim, text_dim)` of the text features that tell of its concepts. Every rule here finds
matrices M_i, by which the joined change is

    D = sum_i D_i M_i

so that each concept keeps a share of its own, which can be weakened or forgotten by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from ..method import Change
from ..projections import ProjectionLayout
from ..settings import check, choice, switch
from .maps import Map

OWN_CAPTIONS, TWO_PROMPTS = "its own captions", "the token and a photo of it"


@dataclass(frozen=True)
class Reading:
    """Which text features tell of a concept, for rules that read some. Rows before the token are the same
    without it, and are left out.
    """

    captions: str = choice(
        OWN_CAPTIONS,
        (OWN_CAPTIONS, TWO_PROMPTS),
        "Which prompts tell of a concept. Papers: its token alone, and a photo of it.",
        rare=True,
    )
    padding: bool = switch(
        True,
        "Whether the padding behind a prompt counts, which the model reads too, and most of a concept comes "
        "through. Papers: it does not.",
        rare=True,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What text features tell, as second moments `(text_dim, text_dim)`, float64.

    own: of each memory's concepts; general: of what is to stay, general prompts and the concepts' captions
    with their class words, the mean over the prompts of each added up.
    """

    own: tuple[Tensor, ...]
    general: Tensor


class Blend(Protocol):
    """A rule that has seen all there is to join."""

    def maps(self, changes: Sequence[Tensor]) -> Sequence[Map]:
        """M_i of each memory, for one projection.

        changes: D_i of each, float64 `(out, text_dim)`.
        """
        ...


class Joining(Protocol):
    """One way to join. Settings: a frozen dataclass (see `settings.py`).

    reads_text: it goes by text features, so that it is about keys and values alone.
    most: memories that it can join, None for any number.
    """

    name: str
    Settings: type[Any]
    reads_text: bool
    most: int | None

    def start(self, evidence: Evidence, settings: Any) -> Blend:
        """Look at all there is to join."""
        ...

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Change:
        """A concept's share from what a file keeps of it. ValueError for other tensors."""
        ...
