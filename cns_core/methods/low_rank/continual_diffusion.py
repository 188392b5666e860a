"""Continual Diffusion, C-LoRA (2304.06027): each concept has a low-rank change of keys and values, which is
held where concepts before it have moved much.

    L_forget = || |sum_{s<t} A_s B_s| * A_t B_t ||_F^2      (Eq. 3)

entry by entry; earlier concepts count whatever they were learned by. The paper's token starts as a random
vector, and its captions go without the class word. Here, too, the token stands in the class word's place, but
it starts from the class word: the loop owns it, and does so for every method.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...method import Earlier
from ...settings import check, number, whole
from .adaptation import LowRankAdaptation, random_downs
from .method import EveryProjection, LowRankMethod


@dataclass(frozen=True)
class ContinualDiffusionTraining:
    """How the factors are trained, and how hard they are held."""

    rank: int = whole(16, 1, 256, "Rank of each concept's change: how much it can learn. Paper: 16.")
    weight_lr: float = number(5e-4, 0, 1, "Learning rate of the weights.", step=1e-5, digits=9)
    keep_earlier: float = number(
        1e8,
        0,
        1e12,
        "How hard entries are held that earlier concepts have moved: the weight of L_forget. Paper: 1e6 to "
        "1e8. Where weights move ten times as far, a ten thousandth of it does the same.",
        step=1e6,
    )

    def __post_init__(self) -> None:
        check(self)


class ContinualDiffusionAdaptation(LowRankAdaptation):
    """Factors with L_forget."""

    def __init__(
        self, earlier: Earlier, settings: ContinualDiffusionTraining, device: torch.device | str = "cpu"
    ) -> None:
        downs = random_downs(earlier.layout, settings.rank, seed=len(earlier.taught()))
        super().__init__(earlier, settings.weight_lr, downs, device)
        self._keep_earlier = settings.keep_earlier

    def penalties(self) -> dict[str, Tensor]:
        loss = self.ups.new_zeros(())
        if self._keep_earlier:
            for name, earlier in self._earlier.items():
                up, down = self._parts[name]
                loss = loss + (earlier.float() * (up @ down)).square().sum()
        return {"L_forget": self._keep_earlier * loss}


class ContinualDiffusion(LowRankMethod):
    """C-LoRA."""

    name = "continual diffusion"
    Training = ContinualDiffusionTraining

    def start(
        self,
        prepared: EveryProjection,
        earlier: Earlier,
        settings: ContinualDiffusionTraining,
        device: torch.device,
    ) -> ContinualDiffusionAdaptation:
        return ContinualDiffusionAdaptation(earlier, settings, device)
