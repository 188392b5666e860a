"""Pictures in other colour spaces look as they look in a viewer."""

import numpy as np
import pytest
from PIL import Image, ImageCms

from cns_core.colour import in_srgb
from cns_core.picture_files import load_image


def lab_profile() -> bytes:
    """Of another kind of picture than RGB."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def picture_of(mode: str) -> Image.Image:
    return Image.new(mode, (64, 48), (200, 100, 50, 128)[: len(mode)])


def swapped_profile() -> bytes:
    """sRGB with its red and green primaries changed for each other, under another name."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    at = data.index(b"rXYZ"), data.index(b"gXYZ")
    data[at[0] : at[0] + 1], data[at[1] : at[1] + 1] = b"g", b"r"
    return bytes(data).replace("sRGB".encode("utf-16-be"), "other"[:4].encode("utf-16-be"))


def load_saved(folder, picture):
    picture.save(folder / "plain.png")
    return load_image(folder / "plain.png")[:2]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_profile_is_applied(tmp_path, mode):
    picture = picture_of(mode)
    picture.save(tmp_path / "a.png", icc_profile=swapped_profile())
    pixels, mask, _ = load_image(tmp_path / "a.png")
    plain, plain_mask = load_saved(tmp_path, picture)
    # A red that means green: the channels come back the other way round.
    assert np.allclose(pixels[0, 0, [1, 0, 2]], plain[0, 0], atol=0.02)
    assert (mask is None) == (plain_mask is None) == (mode == "RGB")


def test_srgb_is_left_bit_for_bit(tmp_path):
    picture = picture_of("RGB")
    picture.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert in_srgb(picture, "a.png") is picture


@pytest.mark.parametrize("profile", [b"no profile", lab_profile()])
def test_a_profile_that_does_not_fit_is_left_out_with_a_warning(tmp_path, caplog, profile):
    picture = picture_of("RGB")
    picture.save(tmp_path / "a.png", icc_profile=profile)
    pixels, *_ = load_image(tmp_path / "a.png")
    assert "a.png cannot be used" in caplog.text
    assert pixels.equal(load_saved(tmp_path, picture)[0])
