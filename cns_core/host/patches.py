"""What changes how a MODEL's U-Net computes, beside its weights and noise levels.

Patches of this kind are other packs' functions: there is no telling what two of them have in common, and most
have no backward. Training refuses them by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .types import Model

# What the host lays on a model as an object: noise levels, which training goes by, and the computing dtype.
_OBJECTS = ("model_sampling", "manual_cast_dtype")
# Wrappers that change what is computed from the noise to the prediction; others are about sampling.
_WRAPPERS = ("apply_model", "diffusion_model")
_COMPILED = "torch.compile"  # computes the same, faster


def forward_patches(model: Model) -> list[str]:
    """Each with the place where it acts and, where it is a function, its name and module."""
    return list(dict.fromkeys(_found(model)))


def _found(model: Model) -> Iterator[str]:
    options = model.model_options
    inner = options.get("transformer_options", {})
    for kind in ("patches", "patches_replace"):
        for place, patches in inner.get(kind, {}).items():
            for patch in patches.values() if isinstance(patches, Mapping) else patches:
                yield f"{place}: {_named(patch)}"
    if (function := options.get("model_function_wrapper")) is not None:
        yield f"the whole U-Net: {_named(function)}"
    for wrappers in (model.wrappers, inner.get("wrappers", {})):
        for place in _WRAPPERS:
            for key, functions in wrappers.get(place, {}).items():
                yield from (f"{place}: {_named(function)}" for function in functions if key != _COMPILED)
    for place, patch in model.object_patches.items():
        if place not in _OBJECTS:
            yield f"{place}: {_named(patch)}"
    yield from (f"the modules: {name}" for name in model.injections)


def _named(patch: Any) -> str:
    known = patch if hasattr(patch, "__qualname__") else type(patch)
    return f"{known.__qualname__} of {known.__module__}"
