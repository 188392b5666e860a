"""Colour profiles: pictures of phones and cameras are often in a wider space than the sRGB of the models."""

from __future__ import annotations

import logging
from io import BytesIO

from PIL import Image, ImageCms

_SIXTEEN_BITS_OR_FLOATS = ("I", "F")  # the colour management of Pillow has eight bits


def in_srgb(picture: Image.Image, name: str) -> Image.Image:
    """An 8-bit picture in sRGB by the profile that it carries, with its transparency; itself where it carries
    none or is in sRGB already. A profile that is damaged or of another kind of picture is left out, with a
    warning that gives `name`.
    """
    profile = picture.info.get("icc_profile")
    if not profile or picture.mode.startswith(_SIXTEEN_BITS_OR_FLOATS):
        return picture
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if ImageCms.getProfileDescription(source).startswith("sRGB"):
            return picture
        transparent = picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
        alpha = picture.convert("RGBA").getchannel("A") if transparent else None
        plain = (
            picture if picture.mode in ("L", "CMYK") else picture.convert("L" if _is_grey(picture) else "RGB")
        )
        converted = ImageCms.profileToProfile(plain, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        logging.warning(f"CNS: the colour profile of {name} cannot be used ({error}); it is read as sRGB.")
        return picture
    assert converted is not None  # it changes nothing in place
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _is_grey(picture: Image.Image) -> bool:
    return picture.mode in ("L", "LA", "1")
