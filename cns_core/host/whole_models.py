"""MODEL and CLIP as training needs them: on the device as a whole, with room beside them.

Newer hosts stream weights in for each forward, through buffers that are used again before the backward.
"""

from __future__ import annotations

from typing import Any

import comfy.model_management as management

from .types import Clip, Model


def whole_model(model: Model) -> Model:
    """A clone that the host loads as a whole."""
    clone: Model = _whole(model)
    return clone


def whole_clip(clip: Clip) -> Clip:
    """A clone that the host loads as a whole."""
    clone: Any = clip.clone()
    clone.patcher = _whole(clip.patcher)
    clone.cond_stage_model = clone.patcher.model
    return clone  # type: ignore[no-any-return]


def check_whole(model: Model, clip: Clip) -> None:
    """ValueError for a MODEL or CLIP that is streamed in and that the host cannot load in any other way."""
    for name, patcher in (("MODEL", model), ("CLIP", clip.patcher)):
        if _is_streamed(patcher) and getattr(patcher, "cached_patcher_init", None) is None:
            raise ValueError(
                f"ComfyUI streams this {name} into the GPU (dynamic VRAM). Training needs all of it there, "
                "and the node that loaded it did not tell how to load it again. Load it with ComfyUI's own "
                "Load Checkpoint, or start ComfyUI with --disable-dynamic-vram."
            )


def load_whole(model: Model, clip: Clip) -> None:
    """Have the host load both, and nothing beside them.

    Raises:
        RuntimeError: they do not fit.
    """
    # As much as there is: whatever else lies on the device only takes memory that steps need.
    wanted = management.get_total_memory(model.load_device)
    management.load_models_gpu([clip.patcher, model], memory_required=wanted, force_full_load=True)
    if getattr(model.model, "model_lowvram", False):
        size, loaded = model.model_size() / 2**20, model.loaded_size() / 2**20
        raise RuntimeError(
            f"Only {loaded:.0f} of the U-Net's {size:.0f} MB fit into GPU memory; "
            "training needs all of it. Close other programs, unload other models, "
            "or start ComfyUI without --lowvram."
        )


def _whole(patcher: Any) -> Any:
    return patcher.clone(disable_dynamic=True) if _is_streamed(patcher) else patcher.clone()


def _is_streamed(patcher: Any) -> bool:
    return bool(getattr(patcher, "is_dynamic", lambda: False)())
