"""CaptionConceptImages: captions to edit and train on, beside the pictures of a folder."""

from __future__ import annotations

import hashlib
from typing import Any

from comfy_api.latest import io, ui

from ..cns_core.caption_wording import MAX_PREFIX
from ..cns_core.host import paths
from ..cns_core.host.caption_folder import CaptionOrder, caption_folder
from ..cns_core.picture_files import list_images
from .concept import NO_FOLDER
from .sockets import advanced, schema
from .values import checked

# The type of a combo's input; the host's own output of a combo has its options for a type, which fits none.
_Folder = io.Custom("COMBO")


class CaptionConceptImages(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CaptionConceptImages",
            display_name="Caption Concept Images",
            description="Writes a caption beside each picture of a folder, for you to edit and for training "
            "to read.",
            search_aliases=["caption", "BLIP", "image to text", "describe", "tag"],
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=[NO_FOLDER, *paths.image_folders()],
                    default=NO_FOLDER,
                    tooltip="Folder of pictures below ComfyUI's input directory. Press R in the editor "
                    "after adding one.",
                ),
                io.String.Input(
                    "class_word",
                    default="dog",
                    tooltip="As in Load Concept Images. Where a caption has this word, {} takes its place "
                    "and stands for the token; else {} goes in front.",
                ),
                io.String.Input(
                    "model",
                    default=paths.CAPTION_MODEL,
                    tooltip="The model that looks at the pictures: a Hugging Face id, fetched at first use "
                    "(1 GB for the default), or a transformers folder of an image-to-text model below "
                    "models/.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    tooltip="Write captions anew where there are some already, yours included.",
                ),
                io.Int.Input(
                    "max_words",
                    default=40,
                    min=3,
                    max=200,
                    tooltip="Longer captions are cut. Training reads some 50 words.",
                ),
                io.String.Input(
                    "prefix",
                    default="",
                    tooltip=f"Put in front of each caption, {MAX_PREFIX} characters at most. With {{}} in "
                    "it, it is where the token goes: 'a painting in the style of {},'.",
                ),
                advanced(
                    io.String.Input(
                        "instruction",
                        default="",
                        multiline=True,
                        tooltip="What the model is asked. Leave empty for BLIP, GIT and the like; models "
                        "that chat are then asked for one short sentence.",
                    )
                ),
            ],
            outputs=[
                io.String.Output("text", display_name="text"),
                _Folder.Output("captioned", display_name="folder"),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None) -> bool | str:
        try:
            if folder is not None:  # else it comes from another node
                list_images(_place(folder))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, folder: str | None, **_: Any) -> str:
        """Changes exactly when a picture or a caption of the folder does."""
        files = [] if folder is None else paths.files_of(_place(folder))
        return hashlib.sha256(repr(files).encode()).hexdigest()

    @classmethod
    @checked()
    def execute(
        cls,
        folder: str,
        class_word: str,
        model: str,
        overwrite: bool,
        max_words: int,
        prefix: str,
        instruction: str,
    ) -> io.NodeOutput:
        order = CaptionOrder(
            _place(folder), class_word, model, overwrite, max_words, prefix, instruction.strip()
        )
        text = caption_folder(order)
        return io.NodeOutput(text, folder, ui=ui.PreviewText(text))


def _place(folder: str) -> Any:
    if folder == NO_FOLDER:
        raise ValueError("No folder is chosen. Choose one below ComfyUI's input directory.")
    return paths.image_folder(folder)
