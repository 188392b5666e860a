"""Stop and resume: everything that decides the rest of a run, as one safetensors file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from .atomic_write import write_atomically
from .tensor_file import TensorFileError, read_json, read_tensors
from .tokens import TokenVectors

_VERSION = 4


class CheckpointError(ValueError):
    """A checkpoint that is damaged, or of another run."""


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


def state_bytes(adaptation: Mapping[str, Tensor], parameters: int) -> int:
    """How large a checkpoint becomes, with an adaptation's state, once Adam has moved so many parameters: two
    moments of each, float32, and of what is no part of the adaptation (the token) its values.
    """
    return sum(t.numel() * t.element_size() for t in adaptation.values()) + 12 * parameters


def save_state(path: Path, state: TrainerState, key: str) -> None:
    """Write atomically; `key` says which run it belongs to."""
    tensors = {"generator": state.generator}
    tensors["losses"] = torch.tensor(list(state.losses.values()), dtype=torch.float64)
    tensors |= {f"adaptation.{n}": v for n, v in state.adaptation.items()}
    tensors |= {f"token.{n}": v for n, v in state.token_vectors.items()}
    tensors |= {f"optimizer.{n}": v for n, v in state.optimizer.items()}
    about = {"version": _VERSION, "key": key, "losses": list(state.losses), "sha256": _digest(tensors)}
    write_atomically(path, save(tensors, {"cns_checkpoint": json.dumps(about)}))


def load_state(path: Path, key: str) -> TrainerState:
    """Read a checkpoint of the run `key`. CheckpointError when it is damaged or of another run."""
    try:
        file = read_tensors(path)
        about = read_json(file.metadata.get("cns_checkpoint", "{}"))
        if not isinstance(about, dict) or (about.get("version"), about.get("key")) != (_VERSION, key):
            raise CheckpointError(f"{path.name} is no checkpoint of this run.")
        if about.get("sha256") != _digest(file.tensors):
            raise CheckpointError(f"{path.name} is not as it was written.")
        return _state(file.tensors, about["losses"])
    except CheckpointError:
        raise
    except (TensorFileError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path.name} is damaged ({type(error).__name__}: {error}).") from error


def _state(tensors: Mapping[str, Tensor], losses: Sequence[str]) -> TrainerState:
    """ValueError or KeyError when something is missing or not finite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"some of {name} are not finite")

    def below(prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}

    return TrainerState(
        adaptation=below("adaptation."),
        token_vectors=below("token."),
        optimizer=below("optimizer."),
        generator=tensors["generator"],
        losses={n: tuple(row) for n, row in zip(losses, tensors["losses"].tolist(), strict=True)},
    )


def check_alike(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str) -> None:
    """CheckpointError unless both hold tensors of the same names, types and shapes."""
    seen, wanted = (
        {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
        for tensors in (found, expected)
    )
    if wrong := sorted(name for name in {*seen, *wanted} if seen.get(name) != wanted.get(name)):
        name = wrong[0]
        raise CheckpointError(
            f"The checkpoint belongs to another run: of {what}, {name} is {seen.get(name, 'missing')}, "
            f"expected {wanted.get(name, 'nothing')}."
        )


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
