"""Weight functions on the host's modules, which all clones of a model share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from ..method import Factored, WeightFunction
from ..weight_scopes import state_dict_key
from .identity import PREFIX
from .types import Model


class _Wrapper:
    """A weight function in the form the host calls: `f(weight)`, and questions about memory."""

    def __init__(self, function: WeightFunction) -> None:
        self.function = function

    def __call__(self, weight: Tensor) -> Tensor:
        return self.function(weight)

    def move_to(self, device: Any = None) -> int:
        return 0  # the packed values live on the training device already

    def passive_memory_usage(self) -> int:
        return 0


@contextmanager
def weights_wrapped(model: Model, functions: Mapping[str, WeightFunction]) -> Iterator[None]:
    """While open, each named weight of the U-Net is `f(W)`.

    The products of a `Factored` function are added to what its module puts out, and never to its weight: that
    takes neither a new weight at every call nor, in the backward, a gradient of the weight's size.
    """
    with ExitStack() as hooks:
        try:
            for name, function in functions.items():
                rest: WeightFunction | None = function
                if isinstance(function, Factored):
                    rest = function.rest
                    module = model.model.diffusion_model.get_submodule(name)
                    hooks.callback(module.register_forward_hook(_adding_products(function)).remove)
                if rest is not None:
                    model.add_weight_wrapper(f"{PREFIX}{state_dict_key(name)}", _Wrapper(rest))
            yield
        finally:
            remove_wrappers(model)


def _adding_products(function: Factored) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        (x,) = inputs
        for up, down in function.products():
            output = output + (x.to(down.dtype) @ down.T @ up.T).to(output.dtype)
        return output

    return hook


def remove_wrappers(model: Model) -> None:
    """Take our weight functions off the modules."""
    for module in model.model.modules():
        for kind in ("weight_function", "bias_function"):
            functions = getattr(module, kind, None)
            if functions and any(isinstance(f, _Wrapper) for f in functions):
                setattr(module, kind, [f for f in functions if not isinstance(f, _Wrapper)])
    ours = {k: [f for f in v if not isinstance(f, _Wrapper)] for k, v in model.weight_wrapper_patches.items()}
    model.weight_wrapper_patches = {k: v for k, v in ours.items() if v}
