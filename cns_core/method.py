"""What a method of learning is: the one interface between the formulas and the loop, the memory and drawing.

A method says what of the cross-attention's key and value weights may move and what becomes of it. The loop
(`training.py`) owns everything else: batches, seeds, the token's vectors, the prior, the optimizer, resuming,
going back, progress. A method is one file or folder in `methods/` and one line in its registry.

    material --prepare--> Prepared --start--> Adaptation --learned--> Change --lay--> W - W_0

A *projection* is one key or value matrix `W` of shape `(out, text_dim)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .projections import ProjectionLayout

# The frozen weight of a projection to the one that is used in its place: out of place, in the weight's dtype.
WeightFunction = Callable[[Tensor], Tensor]


class Material(Protocol):
    """What a method may look at before a concept is trained."""

    @property
    def layout(self) -> ProjectionLayout:
        """Which projections there are."""
        ...

    @property
    def captions(self) -> tuple[str, ...]:
        """The concept's own, its class word in the token's place."""
        ...

    def weights(self) -> Mapping[str, Tensor]:
        """The untouched projections `(out, text_dim)`, float32, on the device to compute on."""
        ...

    def features(
        self, captions: Sequence[str], general: Sequence[str], tokens: str
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Each prompt's text features `(tokens, text_dim)`, float32, on the device to compute on.

        Shows progress, and may raise to stop.

        Args:
            captions: of the concept.
            general: the same for every concept, so that their features are kept for the next one.
            tokens: which of a prompt's tokens count, see `text_features.counted_tokens`.
        """
        ...


class Prepared(Protocol):
    """What was found out before training: what may move."""

    def digest(self) -> str:
        """sha256 over all of it that decides what is learned."""
        ...

    def moving(self) -> Mapping[str, float]:
        """The share of each projection's entries that may move, 0 to 1."""
        ...

    def report(self, parameters: int, earlier: Mapping[str, Change]) -> str:
        """What may move in figures, for people, as a Markdown list.

        parameters: of the whole U-Net; earlier: by token, what earlier concepts have left.
        """
        ...

    def overlap(self, change: Change) -> float:
        """How much of what may move an earlier concept has moved: intersection over union, 0 to 1."""
        ...


class Change(Protocol):
    """What a concept has left of itself in the projections. Immutable."""

    @property
    def layout(self) -> ProjectionLayout:
        """Which projections it belongs to."""
        ...

    def lay(self, name: str, on: Tensor) -> Tensor:
        """W - W_0 `(out, text_dim)`, float16, of a projection with this concept.

        on: the same without it, as earlier concepts left it. It may be changed in place and given back.
        """
        ...

    def moved(self, name: str) -> Tensor:
        """Bool `(out, text_dim)`: the entries of a projection that this concept determines."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What a file keeps of it, the counterpart of `Method.read`."""
        ...

    def summary(self) -> str:
        """A few words for a list of concepts, such as "334,000 neurons"."""
        ...


class Earlier(Protocol):
    """What was learned before, concept upon concept."""

    @property
    def layout(self) -> ProjectionLayout:
        """Which projections there are."""
        ...

    def changes(self) -> Mapping[str, Tensor]:
        """W_{t-1} - W_0 of every projection `(out, text_dim)`, float16."""
        ...

    def moved(self, name: str) -> Tensor:
        """Bool `(out, text_dim)`: the entries of a projection that any concept has moved."""
        ...


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """Parameters that share a learning rate.

    name: of its gradient norm in reports; setting: what users call the rate.
    """

    name: str
    setting: str
    rate: float
    parameters: Sequence[Tensor]


class Adaptation(Protocol):
    """One concept while it is being learned, beside its token."""

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """What the optimizer moves, in an order that is always the same; leaves that require a gradient."""
        ...

    def weight_functions(self) -> Mapping[str, WeightFunction]:
        """How each projection that may change is computed from its frozen weight."""
        ...

    def before_forward(self) -> None:
        """Called after the parameters have changed, before the next forward."""
        ...

    def penalties(self) -> Mapping[str, Tensor]:
        """Scalars to add to the loss, by the name under which they are recorded; the same names always."""
        ...

    def disabled(self) -> AbstractContextManager[None]:
        """While it is open the weight functions give the frozen weights, as before anything was learned."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Copies on the CPU of all that a checkpoint needs."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave; ValueError when it belongs to another run."""
        ...

    def learned(self) -> Change:
        """What is kept of it."""
        ...


class Method(Protocol):
    """One way to learn a concept.

    Selection and Training are frozen dataclasses (see `settings.py`):
    the settings of `prepare` and of `start`.
    """

    name: str
    Selection: type[Any]
    Training: type[Any]

    def prepare(self, material: Material, settings: Any) -> Prepared:
        """Find out what may move. ValueError when these settings leave nothing to learn with."""
        ...

    def start(self, prepared: Any, earlier: Earlier, settings: Any, device: torch.device) -> Adaptation:
        """Begin to learn a concept on top of what was learned before."""
        ...

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Change:
        """A change from what a file keeps of it. ValueError for other tensors than `Change.tensors` gives."""
        ...


@dataclass(frozen=True)
class ModelIdentity:
    """Which base model something belongs to.

    family: `SD1`, `SD2`, `SDXL`; fingerprint: sha256 over its projections and token tables.
    """

    family: str
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.family} model {self.fingerprint[:12]}"


@dataclass(frozen=True, eq=False)
class Plan:
    """A concept that is ready to be learned: by which method, and what was prepared for it.

    parameters: of the whole U-Net.
    """

    method: Method
    settings: Any
    prepared: Prepared
    base: ModelIdentity
    concept_digest: str
    parameters: int
