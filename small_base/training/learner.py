"""One optimizer step, the moving average of what it moves, and the state of both: the same for every tool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .matrix_optimizer import MatrixOptimizer

_GRADIENT_LIMIT = 1.0  # of the total norm


class Learner:
    """Networks that learn together, and the average of the one that counts.

    Args:
        networks: by the names that their states are kept under.
        averaged: which of them.
        optimizer: over all their parameters.
        decay: of the average, a step.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        averaged: str,
        optimizer: torch.optim.Optimizer | MatrixOptimizer,
        decay: float,
    ) -> None:
        self._networks = dict(networks)
        self._optimizer = optimizer
        self._full_rate = optimizer.param_groups[0]["lr"]
        self._parameters = [p for network in self._networks.values() for p in network.parameters()]
        self.average = Average(self._networks[averaged], decay)

    def update(self, loss: Tensor, index: int, rate: float) -> Tensor:
        """Make step `index` at `rate` x the full learning rate; returns the norm of the gradients."""
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._parameters, _GRADIENT_LIMIT, foreach=True)
        # Every time: a loaded optimizer would go on with the rate that it was saved with.
        for group in self._optimizer.param_groups:
            group["lr"] = self._full_rate * rate
        self._optimizer.step()
        self.average.update(index)
        return norm

    def state(self) -> dict[str, Any]:
        """Weights, their average, and the optimizer."""
        return {
            **{name: network.state_dict() for name, network in self._networks.items()},
            "average": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave; what else is in there is left alone."""
        for name, network in self._networks.items():
            network.load_state_dict(state[name])
        self.average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])


class Average:
    """The moving average of a module's parameters, which draws better than the last ones."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._module = module
        self.values = [parameter.detach().clone() for parameter in module.parameters()]

    @torch.no_grad()
    def update(self, index: int) -> None:
        """After step `index`; early on the average follows quickly."""
        decay = min(self.decay, (1 + index) / (10 + index))
        torch._foreach_lerp_(
            self.values, [parameter.detach() for parameter in self._module.parameters()], 1 - decay
        )

    @torch.no_grad()
    def adopt(self) -> None:
        """Have the module go on from the averaged values."""
        torch._foreach_copy_([parameter.data for parameter in self._module.parameters()], self.values)

    def state_dict(self) -> dict[str, Tensor]:
        """Averaged parameters by name."""
        names = [name for name, _ in self._module.named_parameters()]
        return dict(zip(names, self.values, strict=True))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` gave."""
        for (name, _), value in zip(self._module.named_parameters(), self.values, strict=True):
            value.copy_(state[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this block the module holds the averaged values."""
        parameters = [parameter.data for parameter in self._module.parameters()]
        kept = [parameter.clone() for parameter in parameters]
        torch._foreach_copy_(parameters, self.values)
        try:
            yield
        finally:
            torch._foreach_copy_(parameters, kept)
