"""What a method of learning is: the one interface between the formulas and the loop, the memory and drawing.

A method says what of the cross-attention's key and value weights may move and what becomes of it. The loop
(`training.py`) owns everything else: batches, seeds, the token's vectors, the prior, the optimizer, resuming,
going back, progress. A method is one file or folder in `methods/` and one line in its registry.

    material --prepare--> Prepared --start--> Adaptation --learned--> Change --lay--> W - W_0

A *projection* is one key or value matrix `W` of shape `(out, text_dim)`. A method that moves more of the
U-Net is about other matrices as well, which go by the same name here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from .identity import ModelIdentity
from .laid import Laid
from .projections import ProjectionLayout
from .text_features import TextFeatures

TOKEN = "token"  # the group of the token's own vectors, which the loop moves

# The frozen weight of a projection to the one that is used in its place: out of place, in the weight's dtype.
WeightFunction = Callable[[Tensor], Tensor]


@runtime_checkable
class Factored(Protocol):
    """A weight function that may be taken apart: `f(W) = rest(W) + sum of up down`. A backend that adds the
    products to what a projection puts out, `rest(W) x + up (down x)`, has far less to do.
    """

    def __call__(self, weight: Tensor) -> Tensor: ...

    @property
    def rest(self) -> WeightFunction | None:
        """The part that is no product, without a gradient; None where W stays as it is."""
        ...

    def products(self) -> Sequence[tuple[Tensor, Tensor]]:
        """`(rows, r)` and `(r, text_dim)` of each, float32, as they stand; empty while nothing is added."""
        ...


@dataclass(frozen=True)
class Taught:
    """A concept as far as prompts tell of it, or something erased. captions: with its token in them, or with
    the words that are gone; token: of something erased its name, which no caption has in it.
    """

    token: str
    class_word: str
    captions: tuple[str, ...]

    def class_captions(self) -> tuple[str, ...]:
        """The captions with the class word in the token's place."""
        return tuple(caption.replace(self.token, self.class_word) for caption in self.captions)


class Material(Protocol):
    """What a method may look at before a concept is trained."""

    device: torch.device  # to compute on
    text_device: torch.device  # that prompts are read on

    @property
    def layout(self) -> ProjectionLayout:
        """Which projections there are."""
        ...

    @property
    def captions(self) -> tuple[str, ...]:
        """One of each picture of the concept, its class word in the token's place."""
        ...

    @property
    def taught(self) -> Taught:
        """The concept that is to be learned."""
        ...

    @property
    def earlier(self) -> tuple[Taught, ...]:
        """What the memory holds already."""
        ...

    def weights_in(self, scope: str) -> ProjectionLayout:
        """Which weights a scope has (`weight_scopes.py`)."""
        ...

    def weights(self, layout: ProjectionLayout | None = None) -> Mapping[str, Tensor]:
        """The untouched weights as matrices, float32, on the device to compute on: the projections, or those
        of a layout from `weights_in`.
        """
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

    def second_moments(self, groups: Sequence[Sequence[str]], tokens: str, lasting: int) -> list[Tensor]:
        """The second moment `(text_dim, text_dim)`, float64 on the CPU, of each group of prompts, which may
        have earlier concepts' tokens in them (`moments.py`).

        Shows progress, and may raise to stop.

        Args:
            tokens: which of a prompt's tokens count.
            lasting: so many of the first groups have no learned tokens and come again with the next concept;
                what is found of them is kept.
        """
        ...


class Prepared(Protocol):
    """What was found out before training: what may move."""

    @property
    def layout(self) -> ProjectionLayout:
        """The weights that it is about."""
        ...

    def moving(self) -> Mapping[str, float]:
        """The share of each projection's entries that may move, 0 to 1."""
        ...

    def report(self, parameters: int, earlier: Mapping[str, Change]) -> str:
        """What may move in figures, for people, as a Markdown list.

        parameters: of the whole U-Net; earlier: by token, what earlier concepts have left.
        """
        ...

    def picture(self, earlier: Mapping[str, Change]) -> Tensor:
        """The same as a picture `(1, H, W, 3)`."""
        ...

    def outcome(self, change: Change) -> str:
        """What has come of it in figures, for people, as a Markdown list; empty if there is nothing to tell.

        change: what was learned with it.
        """
        ...

    def check(self, earlier: Earlier) -> None:
        """ValueError when it was prepared for training on top of something else."""
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

    def added(self, name: str) -> tuple[Tensor, Tensor] | None:
        """(up `(out, r)`, down `(r, text_dim)`) float32, when all that it does to a projection is to add
        up @ down to whatever is there; None when it takes the place of something.
        """
        ...

    def moved(self, name: str) -> Tensor:
        """Bool `(out, text_dim)`: the entries of a projection that this concept determines."""
        ...

    def refined(self, by: Any, ruled: Callable[[str], Tensor]) -> Change:
        """What is left of a concept that was learned further, and is the latest one now.

        by: what learning it further has left, by the same method, on top of everything.
        ruled: by projection, bool `(out, text_dim)`: the entries that concepts learned in between determine.
        """
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
        """The weights that it is about: those of `Prepared.layout`, where a method is handed it."""
        ...

    def taught(self) -> tuple[Taught, ...]:
        """The concepts in the order in which they were learned."""
        ...

    def changes(self) -> Mapping[str, Tensor]:
        """W_{t-1} - W_0 of every projection `(out, text_dim)`, float16."""
        ...

    def laid(self) -> Mapping[str, Laid]:
        """The same in parts, with the products of two factors as they are."""
        ...

    def left(self) -> Mapping[str, Change]:
        """By token, what each concept has left, in the order in which they were learned."""
        ...

    def moved(self, name: str) -> Tensor:
        """Bool `(out, text_dim)`: the entries of a projection that any concept has moved."""
        ...


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """Parameters that share a learning rate. One without a gradient is left as it is.

    name: of its gradient norm in reports; setting: what users call the rate.
    """

    name: str
    setting: str
    rate: float
    parameters: Sequence[Tensor]


class Probe(Protocol):
    """What an adaptation may ask of the loop between two steps."""

    def caption_features(self) -> TextFeatures:
        """The concept's captions, each once, with the token as it stands; without a gradient."""
        ...

    def features(self, prompts: Sequence[str]) -> TextFeatures:
        """Any prompts, read in the same way."""
        ...


class Adaptation(Protocol):
    """One concept while it is being learned, beside its token."""

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """What the optimizer moves, in an order that is always the same; leaves that require a gradient."""
        ...

    def weight_functions(self) -> Mapping[str, WeightFunction]:
        """How each projection that may change is computed from its frozen weight."""
        ...

    def before_step(self, step: int, steps: int, probe: Probe) -> None:
        """Called before each of the run's optimizer steps, which are counted from 0."""
        ...

    def rate_factors(self, step: int, steps: int) -> Mapping[str, float]:
        """Factors on the learning rates at a step, by the names of groups, the token's among them;
        1 for those that are not named.

        It is called once a step, when the gradients of that step are there and before they are used: a
        method that scores by gradients in its first steps reads them here, and gives 0 until it has chosen.
        """
        ...

    def before_forward(self) -> None:
        """Called after the parameters have changed, before the next forward."""
        ...

    def penalties(self) -> Mapping[str, Tensor]:
        """Scalars to add to the loss, by the name under which they are recorded; the same names always."""
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
    """One way to learn a concept. It is started by `within.start`, which hands it what earlier concepts left
    in the weights that it is about.

    Selection and Training are frozen dataclasses (see `settings.py`):
    the settings of `prepare` and of `start`.
    prior: the name of the one that goes with it, where the user leaves the choice open.
    """

    name: str
    prior: str
    Selection: type[Any]
    Training: type[Any]

    def prepare(self, material: Material, settings: Any) -> Prepared:
        """Find out what may move. ValueError when these settings leave nothing to learn with."""
        ...

    def start(self, prepared: Any, earlier: Earlier, settings: Any, device: torch.device) -> Adaptation:
        """Begin to learn a concept on top of what was learned before."""
        ...

    def read(self, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> Change:
        """A change from what a file keeps of it, of the weights that the concept moved. ValueError for other
        tensors than `Change.tensors` gives.
        """
        ...


@dataclass(frozen=True, eq=False)
class Plan:
    """A concept that is ready to be learned: by which method, and what was prepared for it.

    made_from: all that decides what is prepared, as a key that lasts; parameters: of the whole U-Net; notes:
    for the user, of what happened on the way; training: the settings of `Method.start`, where they were
    chosen together with the method.
    """

    method: Method
    settings: Any
    prepared: Prepared
    base: ModelIdentity
    concept_digest: str
    made_from: str
    parameters: int
    notes: tuple[str, ...] = ()
    training: Any = None
