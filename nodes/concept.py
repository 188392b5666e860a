"""LoadConceptImages: photos, names and captions to a CONCEPT."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..cns_core.captions import CAPTION_SOURCES, CaptionRule
from ..cns_core.concept import KINDS, Concept, TrainingImage, check_token, make_token
from ..cns_core.host import paths
from ..cns_core.host.machine import memory_for_pictures
from ..cns_core.host.progress import Progress
from ..cns_core.images import (
    MASK_SHOWS,
    SHOWS_REST,
    Bucketing,
    images_from_batches,
    images_from_files,
    thumbnails,
)
from ..cns_core.mask_sheet import mask_sheet, told_masks
from ..cns_core.picture_files import list_images, told_left_out
from .sockets import ConceptSocket, advanced, schema
from .values import checked

NO_FOLDER = "(none)"

_ONE_CAPTION, _EACH_LINE = "one caption", "a caption a line"


class LoadConceptImages(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="LoadConceptImages",
            display_name="Load Concept Images",
            description="What is to be learned: a handful of pictures, a name, a token for prompts and a "
            "class word.",
            search_aliases=["personalise", "dreambooth", "teach concept", "training images"],
            is_input_list=True,
            inputs=[
                io.String.Input(
                    "name", default="my dog", tooltip="Name of the concept, for lists and files."
                ),
                io.String.Input(
                    "class_word",
                    default="dog",
                    tooltip="The ordinary word for what it is: dog, mug, watercolor. The new token starts "
                    "with its meaning.",
                ),
                io.Combo.Input(
                    "folder",
                    options=[NO_FOLDER, *paths.image_folders()],
                    default=NO_FOLDER,
                    tooltip="Folder of pictures below ComfyUI's input directory. Press R in the editor "
                    "after adding one.",
                ),
                io.Combo.Input(
                    "kind",
                    options=list(KINDS),
                    default="subject",
                    tooltip="Chooses the caption templates that fit.",
                ),
                io.String.Input(
                    "token",
                    default="",
                    tooltip="What to write in prompts, such as <my-dog>. Empty: made from the name.",
                ),
                io.Combo.Input(
                    "caption_source",
                    options=list(CAPTION_SOURCES),
                    default="templates",
                    tooltip="templates: 'a photo of <my-dog>' and alike; txt files: a .txt beside each "
                    "picture; own text: the caption below.",
                ),
                io.String.Input(
                    "caption",
                    default="",
                    multiline=True,
                    tooltip="For 'own text': one caption per line; {} stands for the token, e.g. 'a photo "
                    "of {} on a table'.",
                ),
                io.Int.Input(
                    "resolution",
                    default=512,
                    min=64,
                    max=2048,
                    step=64,
                    tooltip="Training resolution in pixels: 512 for SD 1.x, 768 for SD 2.x, 1024 for SDXL. "
                    "Lower needs less memory.",
                ),
                advanced(
                    io.Boolean.Input(
                        "buckets",
                        default=True,
                        tooltip="Keep each picture's aspect ratio (same area) instead of cropping to a "
                        "square.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "flip",
                        default=False,
                        tooltip="Add mirrored copies. Leave off for anything with text or a left and a "
                        "right side.",
                    )
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="Pictures from other nodes, instead of a folder: batches or lists, of any sizes.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Of these pictures, for the masked loss; mask shows says what is white in it.",
                ),
                io.Combo.Input(
                    "mask_shows",
                    options=list(MASK_SHOWS),
                    default=SHOWS_REST,
                    optional=True,
                    tooltip="What is white in the mask. what to leave out: Load Image's MASK of a cut-out, "
                    "whose background becomes white, as it does from a folder; the concept: masks of "
                    "segmentation nodes, and what you painted over the concept.",
                ),
                io.Combo.Input(
                    "caption_file",
                    options=[_ONE_CAPTION, _EACH_LINE],
                    default=_ONE_CAPTION,
                    optional=True,
                    tooltip="For 'txt files'. one caption: all that stands in the file, line ends or not; a "
                    "caption a line: several wordings, of which training draws one at each step.",
                ),
            ],
            outputs=[
                ConceptSocket.Output("concept", display_name="concept"),
                io.Image.Output("preview", display_name="images"),
                io.String.Output("text", display_name="text"),
                io.Image.Output("masks", display_name="masks"),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, folder: Sequence[str | None], name: Sequence[str | None] = (), token: Sequence[str | None] = ()
    ) -> bool | str:
        try:
            for place in _chosen(folder):
                list_images(paths.image_folder(place))
            for named, written in zip(name, token, strict=False):
                if named is not None and written is not None:  # else they come from another node
                    _token(named, written)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, folder: Sequence[str | None], **_: Any) -> str:
        """Changes exactly when a file of the folder does, a picture, caption or mask,
        so that nothing is trained twice and nothing stale is used.
        """
        files = [paths.files_of(paths.image_folder(name)) for name in _chosen(folder)]
        return hashlib.sha256(repr(files).encode()).hexdigest()

    @classmethod
    @checked("images", "mask")
    def execute(
        cls,
        name: str,
        class_word: str,
        folder: str,
        kind: str,
        token: str,
        caption_source: str,
        caption: str,
        resolution: int,
        buckets: bool,
        flip: bool,
        images: Sequence[Tensor] = (),
        mask: Sequence[Tensor] = (),
        mask_shows: str = SHOWS_REST,
        caption_file: str = _ONE_CAPTION,
    ) -> io.NodeOutput:
        token = _token(name, token)
        rule = CaptionRule(
            caption_source, token, class_word, kind, caption, each_line=caption_file == _EACH_LINE
        )
        bucketing = Bucketing(resolution, buckets, flip)
        if (not images) == (folder == NO_FOLDER):
            raise ValueError(
                "No pictures: choose a folder below ComfyUI's input directory, or connect an IMAGE batch."
                if not images
                else f"Pictures come from the folder {folder!r} and from the images input; set folder to "
                f"{NO_FOLDER} or unplug images."
            )
        if mask and not images:
            raise ValueError(
                "A mask is connected without images. Masks of pictures in a folder are their alpha channels, "
                "or files beside them: dog-mask.png for dog.jpg."
            )
        room = memory_for_pictures()
        if not images:
            files, left_out = list_images(paths.image_folder(folder))
            with Progress(len(files)) as progress:
                built, notes = images_from_files(files, rule, bucketing, progress.phase, room)
            notes = [*told_left_out(left_out), *notes]
        else:
            with Progress(1) as progress:
                built, notes = images_from_batches(
                    images, mask, rule, bucketing, mask_shows, progress.phase, room
                )
        concept = Concept(name.strip(), token, class_word.strip(), kind, built)
        lines = [
            f"`{concept.token}`: {concept.name} ({kind}, {concept.class_word}), {len(built)} training images"
        ]
        lines += _listed(built, written=caption_source != "templates")
        lines = [*lines, *notes, told_masks(built)]
        text = "\n".join(f"- {line}" for line in lines)  # the editor shows texts as Markdown
        return io.NodeOutput(concept, thumbnails(built), text, mask_sheet(built), ui=ui.PreviewText(text))


def _listed(images: Sequence[TrainingImage], written: bool) -> list[str]:
    """A line for each picture. Of templates all have the same ones; written captions are worth reading, each
    of them.
    """
    shown = images if written else images[:12]
    lines = []
    for image in shown:
        captions = " / ".join(f"`{c}`" for c in (image.captions if written else image.captions[:1]))
        lines.append(f"{image.source}: {image.pixels.shape[1]} x {image.pixels.shape[0]}, {captions}")
    return [*lines, f"... and {len(images) - len(shown)} more"] if len(images) > len(shown) else lines


def _chosen(folders: Sequence[str | None]) -> list[str]:
    """Those that are known before anything runs: a wired one comes as None."""
    return [folder for folder in folders if folder is not None and folder != NO_FOLDER]


def _token(name: str, written: str) -> str:
    return check_token(written) if written.strip() else make_token(name)
