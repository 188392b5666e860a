"""One adapter that is trained on from concept to concept: `W_t = W_0 + U_t D_t`.

What a concept leaves is what it has made of the adapter, U_t D_t - U_{t-1} D_{t-1}: a sum like any other, so
that every stage can be drawn, and a concept that is forgotten takes its own share away and no other's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...method import Earlier
from ...projections import ProjectionLayout
from .adaptation import LowRankAdaptation, random_downs
from .change import LowRankChange, joined


class OneAdapterChange(LowRankChange):
    """The adapter as the concept has left it, less what it was before.

    Args:
        adapter: how many columns of ups, and rows of downs, are the adapter itself: the first ones.
    """

    def __init__(self, layout: ProjectionLayout, ups: Tensor, downs: Tensor, adapter: int) -> None:
        super().__init__(layout, ups, downs)
        if not 0 < adapter <= self.rank:
            raise ValueError(f"The adapter has rank {adapter}; expected at most {self.rank}.")
        self.adapter = adapter

    @classmethod
    def read(cls, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> OneAdapterChange:
        if set(tensors) != {"ups", "downs", "adapter"}:
            raise ValueError(f"It has the tensors {sorted(tensors)}; expected ups, downs and adapter.")
        adapter = tensors["adapter"]
        if adapter.dtype != torch.int64 or adapter.shape != (1,):
            raise ValueError(f"adapter is {adapter.dtype} {tuple(adapter.shape)}; expected int64 (1,).")
        return cls(layout, tensors["ups"], tensors["downs"], int(adapter))

    def tensors(self) -> dict[str, Tensor]:
        return {**super().tensors(), "adapter": torch.tensor([self.adapter])}

    def refined(self, by: LowRankChange, ruled: Callable[[str], Tensor]) -> OneAdapterChange:
        """Both sums; the adapter is as it was left last."""
        if not isinstance(by, OneAdapterChange):
            raise TypeError(f"A {type(by).__name__} was not learned by training one adapter on.")
        return OneAdapterChange(self.layout, *joined(by, self), by.adapter)

    def summary(self) -> str:
        return f"one adapter of rank {self.adapter}, trained on"


class OneAdapterAdaptation(LowRankAdaptation):
    """The adapter of the concept learned last is trained on; with the first concept it starts anew.

    Raises:
        ValueError: it has another rank.
    """

    def __init__(self, earlier: Earlier, rank: int, rate: float, device: torch.device | str = "cpu") -> None:
        adapters = [c for c in earlier.left().values() if isinstance(c, OneAdapterChange)]
        if adapters and adapters[-1].adapter != rank:
            raise ValueError(
                f"rank is {rank}, but the adapter that this memory's concepts share has rank "
                f"{adapters[-1].adapter}. Set rank to {adapters[-1].adapter}, or start a new memory."
            )
        self._started: LowRankChange | None = None  # the adapter as it was before
        self._before: dict[str, tuple[Tensor, Tensor]] = {}  # its factors by projection
        if not adapters:
            super().__init__(earlier, rate, random_downs(earlier.layout, rank, seed=0), device)
            return
        last = adapters[-1]
        started = LowRankChange(
            last.layout, last.ups[:, :rank].contiguous(), last.downs[:, :rank].contiguous()
        )
        super().__init__(earlier, rate, started.downs, device, started.ups)
        self._started = started
        for name in self.layout.names:
            up, down = started.added(name)
            self._before[name] = up.to(device), down.to(device)

    def _on(self, name: str, before: Tensor) -> Tensor:
        if name not in self._before:
            return super()._on(name, before)
        # By themselves, so that they cancel to the last bit before the first step.
        now, then = (up @ down for up, down in (self._parts[name], self._before[name]))
        return before + (now - then)

    def learned(self) -> OneAdapterChange:
        found = self.factors()
        if self._started is None:
            return OneAdapterChange(self.layout, found.ups, found.downs, found.rank)
        less = LowRankChange(self.layout, -self._started.ups, self._started.downs)
        return OneAdapterChange(self.layout, *joined(found, less), found.rank)
