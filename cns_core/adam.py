"""Adam (Kingma and Ba, 2015) without weight decay, its first moment in bfloat16.

The first moment forgets nine tenths within 22 steps, so rounding it to 8 bits moves a step by less than one
percent; the second moment changes by a thousandth a step and would stand still in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_BETAS, _EPS = (0.9, 0.999), 1e-8


class Adam(torch.optim.Optimizer):
    """As `torch.optim.Adam`: groups of `params` with their `lr`; 6 bytes of state for each value."""

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 1e-3})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group["lr"])
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, rate: float) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())  # on the CPU: reading it does not wait for a GPU
            state["exp_avg"] = torch.zeros_like(parameter, dtype=torch.bfloat16)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        steps = float(state["step"])
        mean = state["exp_avg"].to(gradient.dtype).lerp_(gradient, 1 - _BETAS[0])
        state["exp_avg"].copy_(mean)
        square = state["exp_avg_sq"].mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        scale = square.sqrt().div_((1 - _BETAS[1] ** steps) ** 0.5).add_(_EPS)
        parameter.addcdiv_(mean, scale, value=-rate / (1 - _BETAS[0] ** steps))
