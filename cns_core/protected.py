"""What a new concept must leave alone: general prompts, class words, earlier concepts, what the user keeps.

    P = C_general + C_keep + class_weight C_class + sum over earlier concepts C_s + floor tr(C_general)/d I

with the second moments C `(d, d)` of `moments.py`. What a change D of a projection does to all of it is
tr(D P D^T).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .general_prompts import general_prompts
from .method import Earlier, Material, Taught
from .moments import energy
from .projections import ProjectionLayout
from .settings import check, choice, number, text, whole

ALL_TOKENS = "all tokens"
AUTOMATIC_ON_CPU, AUTOMATIC_ON_GPU = 1024, 4096  # general prompts
_SUFFERS = 0.05  # of keys and values, root mean square


@dataclass(frozen=True)
class Protection:
    """What is protected, and how much of each."""

    keep: str = text(
        "",
        "What must stay as it is, one prompt per line: trigger words of your LoRAs and embeddings, favourite "
        "prompts. General prompts, the class word and all earlier concepts are protected anyway.",
    )
    general_prompts: int = whole(
        0,
        0,
        65_536,
        f"How many general prompts are protected. 0: {AUTOMATIC_ON_GPU:,} on a GPU, {AUTOMATIC_ON_CPU:,} on "
        "a CPU. They are read once for each text encoder.",
        rare=True,
    )
    class_weight: float = number(
        10.0,
        0,
        1000,
        "How much the class words of the concept and of earlier ones weigh against the general prompts.",
        step=0.5,
        rare=True,
    )
    floor: float = number(
        0.03,
        1e-6,
        1,
        "How much every direction is protected, even one that no prompt uses: a share of their mean.",
        step=1e-3,
        digits=9,
        rare=True,
    )
    protected_tokens: str = choice(
        ALL_TOKENS,
        (ALL_TOKENS, "caption words"),
        "Which tokens of a prompt are protected and learned by: a model reads all of them, padding too.",
        rare=True,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, eq=False)
class Protected:
    """The second moments `(d, d)`, float64, of what is protected.

    general: of the general prompts and what the user asks to keep.
    class_word: of the concept's captions with the class word.
    earlier_class_words: the same of earlier concepts, summed.
    earlier: of each earlier concept's captions, by token.
    gram: W^T W over all projections, so that the energy of the untouched keys and values is a trace.
    sizes: by projection, rms(W) sqrt(tr C_general): what a row of any matrix with such entries puts out.
        Not what its rows do put out, most of which is the same for all prompts, above all in keys.
    taught: the earlier concepts; prompts: all that decides the moments.
    """

    layout: ProjectionLayout
    settings: Protection
    general: Tensor
    class_word: Tensor
    earlier_class_words: Tensor
    earlier: Mapping[str, Tensor]
    gram: Tensor
    sizes: Mapping[str, float]
    taught: tuple[Taught, ...]
    prompts: tuple[str, ...]

    def moment(self) -> Tensor:
        """P `(d, d)`."""
        total = self.general + self.settings.class_weight * (self.class_word + self.earlier_class_words)
        for concept in self.earlier.values():
            total = total + concept
        return total + self._floor() * torch.eye(len(total), dtype=total.dtype)

    def effects(self, change: Tensor) -> dict[str, float]:
        """How far a change D `(rows, d)` of all projections moves keys and values of each protected group:
        the root mean square of the change over that of the untouched ones.
        """
        groups = {"general prompts": self.general, "its class word": self.class_word, **self.earlier}
        return {name: _share(energy(change, c), float((self.gram * c).sum())) for name, c in groups.items()}

    def told(self, change: Tensor) -> list[str]:
        """`effects` in words, a line each, and a warning where something suffers."""
        effects = self.effects(change)
        lines = [f"keys and values of {name} move by {share:.2%}" for name, share in effects.items()]
        suffers = [name for name, share in effects.items() if share > _SUFFERS]
        if suffers:
            lines.append(
                f"{', '.join(suffers)} will look a little different. A lower learning rate or a higher "
                "guard keeps more of it as it was; the concept gets less likeness for it."
            )
        return lines

    def quiet(self) -> int:
        """How many directions of the features general prompts leave below the floor."""
        return int((torch.linalg.eigvalsh(self.general) < self._floor()).sum())

    def check(self, earlier: Earlier) -> None:
        """ValueError unless these are the earlier concepts that are protected."""
        if earlier.taught() != self.taught:
            have, want = (
                ", ".join(t.token for t in taught) or "none" for taught in (self.taught, earlier.taught())
            )
            raise ValueError(
                f"What is protected was prepared for a memory with {have}, but training goes on from one "
                f"with {want}. Connect one memory to both SelectConceptNeurons and ContinualTrain."
            )

    def _floor(self) -> float:
        return self.settings.floor * float(self.general.trace()) / len(self.general)


def automatic_count(text_device: torch.device) -> int:
    """How many general prompts are read where nobody says: as many as the text encoder's device can do."""
    return AUTOMATIC_ON_CPU if text_device.type == "cpu" else AUTOMATIC_ON_GPU


def protect(material: Material, settings: Protection) -> Protected:
    """Measure what general prompts, the class word and earlier concepts say; long work the first time."""
    general = general_prompts(settings.general_prompts or automatic_count(material.text_device))
    keep = tuple(line.strip() for line in settings.keep.splitlines() if line.strip())
    earlier = material.earlier
    if settings.protected_tokens != ALL_TOKENS:
        general = tuple(prompt for prompt in general if prompt)
    groups = [
        general,
        keep,
        material.taught.class_captions(),
        *(taught.class_captions() for taught in earlier),
        *(taught.captions for taught in earlier),
    ]
    of_general, of_keep, class_word, *of_earlier = material.second_moments(
        groups, settings.protected_tokens, lasting=1
    )
    gram, sizes = torch.zeros_like(of_general), {}
    for name, weight in material.weights().items():
        gram += (weight.T @ weight).to("cpu", torch.float64)
        sizes[name] = math.sqrt(float(weight.square().mean()) * float(of_general.trace()))
    return Protected(
        material.layout,
        settings,
        of_general + of_keep,
        class_word,
        sum(of_earlier[: len(earlier)], start=torch.zeros_like(of_general)),
        {taught.token: c for taught, c in zip(earlier, of_earlier[len(earlier) :], strict=True)},
        gram,
        sizes,
        earlier,
        tuple(prompt for group in groups for prompt in group),
    )


def _share(moved: float, untouched: float) -> float:
    return math.sqrt(moved / untouched) if untouched > 0 else 0.0
