"""A node that loads the small base with the one text layer that it has.

Its checkpoint fills the other eleven of CLIP's layers with exact identities, so that any stock loader takes
it. Running them, forward and backward for every caption, would be most of a training step.
"""

from __future__ import annotations

from typing import Any

# Every size of the base has so many trained layers (`small_base/layout.py`), the first ones.
_TEXT_OPTIONS = {"clip_l_model_config": {"num_hidden_layers": 1}}


class LoadSmallBase:
    """What CheckpointLoaderSimple gives, bit for bit, in less time."""

    CATEGORY = "small base"
    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # the host's name
        import folder_paths

        return {"required": {"ckpt_name": (folder_paths.get_filename_list("checkpoints"),)}}

    def load(self, ckpt_name: str) -> tuple[Any, Any, Any]:
        """MODEL, CLIP and VAE of a checkpoint of the small base."""
        import folder_paths

        return load_small_base(folder_paths.get_full_path_or_raise("checkpoints", ckpt_name))


def load_small_base(path: str) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE of a checkpoint of the small base, by its path."""
    import comfy.sd
    import folder_paths

    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
        path,
        output_vae=True,
        output_clip=True,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        te_model_options=_TEXT_OPTIONS,
    )
    return model, clip, vae


NODE_CLASS_MAPPINGS = {"LoadSmallBase": LoadSmallBase}
