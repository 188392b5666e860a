"""How the concept's loss answers to each entry of the weights, summed over steps: dL/dW, or W * dL/dW, which
is what the loss gains when an entry shrinks.

Nothing of it is a parameter, so that it takes no memory once it is no longer asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from ..checkpoint import check_alike
from ..projections import ProjectionLayout


class Sensitivity:
    """Sums of whole steps; what a step that was stopped in between has left is forgotten.

    Attributes:
        sums: by projection, float32 `(out, text_dim)`.
    """

    def __init__(self, layout: ProjectionLayout, times_weight: bool, device: torch.device | str) -> None:
        """times_weight: each gradient times the weight that it is of."""
        self._times_weight = times_weight
        self.sums = {name: torch.zeros(shape, device=device) for name, shape, _ in layout.slices()}
        self._of_step: dict[str, Tensor] = {}

    def watched(self, name: str, weight: Tensor) -> Tensor:
        """The weight, to be used in its place; its gradient is noted when there is one."""
        if not torch.is_grad_enabled():
            return weight
        seen = weight.detach().requires_grad_()
        seen.register_post_accumulate_grad_hook(partial(self._note, name))
        return seen

    def _note(self, name: str, weight: Tensor) -> None:
        gradient, weight.grad = weight.grad, None
        assert gradient is not None
        found = gradient.float()
        if self._times_weight:
            found = found * weight.detach()
        found = found.reshape(self.sums[name].shape)
        before = self._of_step.get(name)
        self._of_step[name] = found if before is None else before + found

    def begin_step(self) -> None:
        self._of_step = {}

    def end_step(self) -> Mapping[str, Tensor]:
        """Adds what the step's batches have noted; gives it, by projection."""
        of_step, self._of_step = self._of_step, {}
        for name, found in of_step.items():
            self.sums[name] += found
        return of_step

    def state_dict(self) -> dict[str, Tensor]:
        return {f"sum.{name}": total.cpu().clone() for name, total in self.sums.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        check_alike(state, self.state_dict(), "the gradients")
        self._of_step = {}
        for name, total in self.sums.items():
            total.copy_(state[f"sum.{name}"])
