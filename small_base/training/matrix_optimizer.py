"""Muon for the matrices of a network, AdamW for the rest, as one optimizer.

Muon (https://kellerjordan.github.io/posts/muon) makes all directions of a matrix's step equally long, so also
those that few pictures ask for: what one name of many looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_SMALLEST_SIDE = 64  # of what counts as a matrix: first and last layers, biases and norms are not


class MatrixOptimizer:
    """What `Learner` needs of an optimizer, made of PyTorch's two.

    A convolution counts as the matrix from all it looks at to all it puts out, in the memory format
    channels_last, so that the matrix shares its memory. Muon's steps are scaled to be as long as AdamW's, so
    one learning rate fits both (arXiv 2502.16982).
    """

    def __init__(self, parameters: Sequence[nn.Parameter], *, rate: float) -> None:
        """Raises ValueError if a convolution's weight is not stored as channels_last."""
        self._matrices = [
            (parameter, nn.Parameter(_as_matrix(parameter.data)))
            for parameter in parameters
            if parameter.ndim in (2, 4) and min(parameter.shape[:2]) >= _SMALLEST_SIDE
        ]
        for parameter, matrix in self._matrices:
            if parameter.data_ptr() != matrix.data_ptr():
                raise ValueError(
                    f"a weight of shape {tuple(parameter.shape)} is not in the memory format channels_last; "
                    "put the network into it first"
                )
        matrices = {id(parameter) for parameter, _ in self._matrices}
        self._rest = [parameter for parameter in parameters if id(parameter) not in matrices]
        self._muon = torch.optim.Muon(
            [matrix for _, matrix in self._matrices],
            lr=rate,
            momentum=0.95,
            weight_decay=0.0,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adam = torch.optim.AdamW(self._rest, lr=rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
        self.param_groups = [*self._muon.param_groups, *self._adam.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients."""
        for parameter, matrix in self._matrices:
            parameter.grad = matrix.grad = None
        self._adam.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """One step with the gradients that the parameters hold."""
        for parameter, matrix in self._matrices:
            matrix.grad = None if parameter.grad is None else _as_matrix(parameter.grad)
        self._muon.step()
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        """Both states."""
        return {"muon": self._muon.state_dict(), "adam": self._adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave. Raises ValueError for the state of another optimizer."""
        if set(state) != {"muon", "adam"}:
            raise ValueError(
                f"the checkpoint's optimizer holds {sorted(state)}, not muon and adam: it is from an earlier "
                "version of this tool; move the checkpoint away and train anew"
            )
        self._muon.load_state_dict(state["muon"])
        self._adam.load_state_dict(state["adam"])
        self.param_groups = [*self._muon.param_groups, *self._adam.param_groups]


def _as_matrix(weight: Tensor) -> Tensor:
    """(out, in) as it is; (out, in, h, w) -> (out, h * w * in)."""
    return weight.permute(0, 2, 3, 1).flatten(1) if weight.ndim == 4 else weight
