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

_VERSION = 2


@dataclass(frozen=True, eq=False)
class TrainerState:
    """The state after a whole number of steps.

    adaptation: what the method keeps; optimizer: moments of each parameter; generator: uint8, the CPU
    generator's state at the start of the next step; losses: by name, of every step so far.
    """

    adaptation: dict[str, Tensor]
    token_vectors: TokenVectors
    optimizer: dict[str, Tensor]
    generator: Tensor
    losses: dict[str, tuple[float, ...]]


def optimizer_state(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> dict[str, Tensor]:
    """Each parameter's moments, as CPU copies named `<parameter>.<moment>`."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[str, Tensor] = {}
    for name, parameter in zip(names, parameters, strict=True):
        for moment, value in optimizer.state.get(parameter, {}).items():
            state[f"{name}.{moment}"] = torch.as_tensor(value).detach().cpu().clone()
    return state


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Sequence[str], state: dict[str, Tensor]
) -> None:
    """Put back what `optimizer_state` took."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, parameter in zip(names, parameters, strict=True):
        moments = {k.removeprefix(name + "."): v for k, v in state.items() if k.startswith(name + ".")}
        if moments:
            # Adam keeps its step counter on the CPU whatever the parameter's device.
            optimizer.state[parameter] = {
                k: v.clone() if k == "step" else v.to(parameter.device, copy=True) for k, v in moments.items()
            }


def state_bytes(state: TrainerState, parameters: int) -> int:
    """How large a checkpoint becomes once Adam has moved so many parameters: two moments of each, float32."""
    tensors = [*state.adaptation.values(), *state.token_vectors.values(), state.generator]
    return sum(t.numel() * t.element_size() for t in tensors) + 8 * parameters


def save_state(path: Path, state: TrainerState, key: str) -> None:
    """Write atomically; `key` says which run it belongs to."""
    tensors = {"generator": state.generator}
    tensors["losses"] = torch.tensor(list(state.losses.values()), dtype=torch.float64)
    tensors |= {f"adaptation.{n}": v for n, v in state.adaptation.items()}
    tensors |= {f"token.{n}": v for n, v in state.token_vectors.items()}
    tensors |= {f"optimizer.{n}": v for n, v in state.optimizer.items()}
    about = {"version": _VERSION, "key": key, "losses": list(state.losses)}
    write_atomically(path, save(tensors, {"cns_checkpoint": json.dumps(about)}))


def load_state(path: Path, key: str) -> TrainerState:
    """Read a checkpoint of the run `key`. ValueError when it is damaged or of another run."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("cns_checkpoint", "{}"))
            if (about.get("version"), about.get("key")) != (_VERSION, key):
                raise ValueError(f"{path.name} is no checkpoint of this run; delete it to start anew.")
            names = file.keys()  # a safe_open itself cannot be iterated
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(
            f"The checkpoint {path.name} is damaged ({error}); delete it to start anew."
        ) from error

    def below(prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}

    return TrainerState(
        adaptation=below("adaptation."),
        token_vectors=below("token."),
        optimizer=below("optimizer."),
        generator=tensors["generator"],
        losses={n: tuple(row) for n, row in zip(about["losses"], tensors["losses"].tolist(), strict=True)},
    )
