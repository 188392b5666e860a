"""Stop and resume: everything that decides the rest of a run, as one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .atomic_write import write_atomically
from .tokens import TokenVectors


@dataclass(frozen=True, eq=False)
class TrainerState:
    """The state after a whole number of steps (as many as there are losses).

    values: float32 `(n,)`; optimizer: Adam's moments as flat tensors; generator: uint8, the CPU generator's
    state at the start of the next step; losses: (diffusion, prior, regularisation) of every step so far.
    """

    values: Tensor
    token_vectors: TokenVectors
    optimizer: dict[str, Tensor]
    generator: Tensor
    losses: tuple[tuple[float, float, float], ...]


def adam_state(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> dict[str, Tensor]:
    """Adam's `step`, `exp_avg`, `exp_avg_sq` per parameter, as CPU copies named `<parameter>.<moment>`."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[str, Tensor] = {}
    for name, parameter in zip(names, parameters, strict=True):
        for moment, value in optimizer.state.get(parameter, {}).items():
            state[f"{name}.{moment}"] = torch.as_tensor(value).detach().cpu().clone()
    return state


def restore_adam(optimizer: torch.optim.Optimizer, names: Sequence[str], state: dict[str, Tensor]) -> None:
    """Put back what `adam_state` took."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, parameter in zip(names, parameters, strict=True):
        moments = {k.removeprefix(name + "."): v for k, v in state.items() if k.startswith(name + ".")}
        if moments:
            # Adam keeps its step counter on the CPU whatever the parameter's device.
            optimizer.state[parameter] = {
                k: v.clone() if k == "step" else v.to(parameter.device, copy=True) for k, v in moments.items()
            }


def save_state(path: Path, state: TrainerState, key: str) -> None:
    """Write atomically; `key` says which run it belongs to."""
    tensors = {"values": state.values, "generator": state.generator}
    tensors["losses"] = torch.tensor(state.losses, dtype=torch.float64).reshape(-1, 3)
    tensors |= {f"token.{n}": v for n, v in state.token_vectors.items()}
    tensors |= {f"adam.{n}": v for n, v in state.optimizer.items()}
    write_atomically(path, save(tensors, {"cns_checkpoint": json.dumps({"version": 1, "key": key})}))


def load_state(path: Path, key: str) -> TrainerState:
    """Read a checkpoint of the run `key`. ValueError when it is damaged or of another run."""
    try:
        with safe_open(path, framework="pt") as file:
            found = json.loads((file.metadata() or {}).get("cns_checkpoint", "{}"))
            if found != {"version": 1, "key": key}:
                raise ValueError(f"{path.name} is no checkpoint of this run; delete it to start anew.")
            names = file.keys()  # a safe_open itself cannot be iterated
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(
            f"The checkpoint {path.name} is damaged ({error}); delete it to start anew."
        ) from error
    return TrainerState(
        values=tensors["values"],
        token_vectors={n.removeprefix("token."): v for n, v in tensors.items() if n.startswith("token.")},
        optimizer={n.removeprefix("adam."): v for n, v in tensors.items() if n.startswith("adam.")},
        generator=tensors["generator"],
        losses=tuple((row[0], row[1], row[2]) for row in tensors["losses"].tolist()),
    )
