"""Masks as files beside pictures, and the sheet that shows what they keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cns_core.captions import CaptionRule
from cns_core.concept import TrainingImage
from cns_core.images import Bucketing, images_from_files, thumbnails
from cns_core.mask_files import masks_of, without_masks
from cns_core.mask_sheet import mask_sheet, told_masks
from cns_core.masked_pictures import load_masked, masks_beside
from cns_core.picture_files import list_images, told_left_out

RULE = CaptionRule("own text", "<d>", "dog", own_text="a photo of {}")


def picture(path: Path, width: int = 128, height: int = 128) -> Path:
    Image.new("RGB", (width, height), (200, 100, 50)).save(path)
    return path


def half_mask(path: Path, width: int = 128, height: int = 128, mode: str = "L") -> Path:
    """White on the right."""
    data = np.zeros((height, width), np.uint8)
    data[:, width // 2 :] = 255
    Image.fromarray(data).convert(mode).save(path)
    return path


# --- names


@pytest.mark.parametrize(
    ("files", "pictures", "alone"),
    [
        (["dog-mask.png", "dog.jpg"], ["dog.jpg"], []),
        (["dog-masklabel.png", "dog.jpg"], ["dog.jpg"], []),
        (["dog.jpg", "dog.mask.png", "mug-mask.png"], ["dog.jpg", "mug-mask.png"], []),
        (
            ["dog.jpg", "mug-masklabel.png", "mug.mask.png"],
            ["dog.jpg"],
            ["mug-masklabel.png", "mug.mask.png"],
        ),
        (["Dog-Mask.PNG", "Dog.jpg"], ["Dog.jpg"], []),
        (["-mask.png", "mask.png", "my-masked-dog.png"], ["-mask.png", "mask.png", "my-masked-dog.png"], []),
    ],
)
def test_masks_are_no_pictures(files: list[str], pictures: list[str], alone: list[str]) -> None:
    found = without_masks([Path(name) for name in files])
    assert [[path.name for path in paths] for paths in found] == [pictures, alone]


def test_each_picture_gets_its_own_mask() -> None:
    names = ("a-mask.png", "a.jpg", "b.mask.png", "b.png", "c.png", "d-masklabel.png", "d.png")
    files = [Path(name) for name in names]
    found = masks_of(files, without_masks(files)[0])
    assert {picture.name: mask.name for picture, mask in found.items()} == {
        "a.jpg": "a-mask.png",
        "b.png": "b.mask.png",
        "d.png": "d-masklabel.png",
    }
    with pytest.raises(ValueError, match=r"a\.jpg has 2 masks, a-mask\.png, a-masklabel\.png"):
        masks_of([*files, Path("a-masklabel.png")], [Path("a.jpg")])


def test_a_folder_lists_pictures_and_names_masks_without_one(tmp_path: Path) -> None:
    for name in ("dog.png", "dog-mask.png", "cat-masklabel.png", "wooden-mask.png"):
        picture(tmp_path / name)
    found, left_out = list_images(tmp_path)
    assert [path.name for path in found] == ["dog.png", "wooden-mask.png"]
    assert left_out == ["cat-masklabel.png"] and "masks without a picture" in told_left_out(left_out)[0]
    assert masks_beside(found) == {tmp_path / "dog.png": tmp_path / "dog-mask.png"}


def test_a_folder_of_masks_alone_has_no_picture(tmp_path: Path) -> None:
    half_mask(tmp_path / "a-masklabel.png")
    with pytest.raises(ValueError, match=r"has no picture.*found a-masklabel\.png"):
        list_images(tmp_path)


def test_a_mask_that_is_a_link_to_elsewhere_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    half_mask(tmp_path / "secret.png")
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "a-mask.png").symlink_to(tmp_path / "secret.png")
    found, left_out = list_images(tmp_path / "in")
    assert masks_beside(found) == {} and left_out == ["a-mask.png"]


# --- reading


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P"])
@pytest.mark.parametrize("times", [1, 2])
def test_white_is_the_concept_whatever_the_size(tmp_path: Path, mode: str, times: int) -> None:
    mask = half_mask(tmp_path / "a-mask.png", 128 // times, 64 // times, mode)
    read = load_masked(picture(tmp_path / "a.png", 128, 64), mask)
    assert read.alpha is not None and read.alpha.shape == (64, 128)
    assert not read.alpha[:, :62].any() and read.alpha[:, 66:].min() == 1.0
    assert torch.equal(read.pixels, load_masked(tmp_path / "a.png", None).pixels)


def test_what_is_transparent_in_a_mask_is_left_out(tmp_path: Path) -> None:
    rgba = np.full((64, 64, 4), 255, np.uint8)
    rgba[:32, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a-mask.png")
    read = load_masked(picture(tmp_path / "a.png", 64, 64), tmp_path / "a-mask.png")
    assert read.alpha is not None and not read.alpha[:32].any() and read.alpha[32:].min() == 1.0


def test_a_mask_file_takes_the_place_of_the_alpha_channel(tmp_path: Path) -> None:
    rgba = np.full((64, 64, 4), 255, np.uint8)
    rgba[:, 32:, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    read = load_masked(tmp_path / "a.png", half_mask(tmp_path / "a-mask.png", 64, 64))
    assert read.alpha is not None and not read.alpha[:, :32].any() and read.alpha[:, 32:].min() == 1.0


@pytest.mark.parametrize(("width", "height"), [(64, 128), (100, 128), (128, 120), (16, 18)])
def test_a_mask_of_another_shape_is_refused(tmp_path: Path, width: int, height: int) -> None:
    mask = half_mask(tmp_path / "a-mask.png", width, height)
    says = rf"a-mask\.png is {width} x {height} pixels and a\.png is 128 x 128, expected a mask of the same"
    with pytest.raises(ValueError, match=says):
        load_masked(picture(tmp_path / "a.png"), mask)


def test_rounding_is_no_other_shape(tmp_path: Path) -> None:
    mask = half_mask(tmp_path / "a-mask.png", 33, 22)  # of 1000 x 667, scaled to a thirtieth
    assert load_masked(picture(tmp_path / "a.png", 1000, 667), mask).alpha is not None


def test_a_damaged_mask_is_named(tmp_path: Path) -> None:
    (tmp_path / "a-mask.png").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"a-mask\.png cannot be read"):
        load_masked(picture(tmp_path / "a.png"), tmp_path / "a-mask.png")


def test_masks_of_a_folder_reach_the_training_images(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png")
    half_mask(tmp_path / "a-masklabel.png")
    images, notes = images_from_files(list_images(tmp_path)[0], RULE, Bucketing(64, flip=True))
    assert [image.mask is None for image in images] == [False, True, False, True]
    assert images[0].mask is not None and images[0].mask[:, 33:].min() > 0.9 and images[0].mask[0, 0] == 0
    assert images[2].mask is not None and images[2].mask[:, :31].min() > 0.9
    assert any("a.png (a-masklabel.png)" in note for note in notes)


def test_a_mask_that_keeps_nothing_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    Image.new("L", (128, 128), 0).save(tmp_path / "a-mask.png")
    with pytest.raises(ValueError, match=r"a\.png: a-mask\.png is 0 in the whole 64 x 64 part"):
        images_from_files([tmp_path / "a.png"], RULE, Bucketing(64))


# --- the sheet


def training_image(mask: torch.Tensor | None, height: int = 64, width: int = 64) -> TrainingImage:
    pixels = torch.tensor([0.2, 0.4, 0.9]).expand(height, width, 3).clone()
    return TrainingImage(pixels, ("a <d>",), mask, "x")


def test_without_masks_the_sheet_is_the_pictures() -> None:
    images = [training_image(None), training_image(None, 64, 128)]
    assert torch.equal(mask_sheet(images), thumbnails(images))
    assert told_masks(images) == "No masks: masked loss would learn from whole pictures"


def test_what_is_kept_stays_and_the_rest_is_dark_grey_and_hatched() -> None:
    mask = torch.zeros(64, 128)
    mask[:, 64:] = 1.0
    images = [training_image(mask, 64, 128)]
    sheet, plain = mask_sheet(images, 128)[0], thumbnails(images, 128)[0]
    assert torch.equal(sheet[:32], plain[:32]) and torch.equal(sheet[96:], plain[96:])  # beside the picture
    assert torch.allclose(sheet[32:96, 70:], plain[32:96, 70:], atol=1e-6)
    left_out = sheet[32:96, :58]
    grey = (left_out.amax(dim=2) - left_out.amin(dim=2)) < 1e-6
    assert 0.6 < grey.float().mean() < 0.9  # stripes are the rest
    assert left_out[grey].max() < plain[32:96, :58].amax()
    assert (left_out[~grey] != plain[40, 10]).any(dim=1).all()


def test_a_grey_mask_dims_in_part() -> None:
    full, half = (mask_sheet([training_image(torch.full((64, 64), value))], 64)[0] for value in (0.0, 0.5))
    plain = thumbnails([training_image(None)], 64)[0]
    assert torch.allclose(half, (full + plain) / 2, atol=1e-6)


def test_how_much_is_kept_is_told() -> None:
    masks = [torch.full((64, 64), 0.25), torch.full((64, 64), 0.5), None]
    images = [training_image(mask) for mask in masks]
    assert told_masks(images) == (
        "Masks keep 25% to 50% of 2 pictures; of 1 picture without one masked loss learns from all"
    )
    assert told_masks(images[:1]) == "Masks keep 25% of 1 picture"
