"""PNG files from the standard library alone are what an imaging library reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from base.png import sheet, write_png
from PIL import Image


@pytest.mark.parametrize("sides", [(5, 7), (1, 1), (64, 3)])
def test_pixels_come_back(tmp_path: Path, sides: tuple[int, int]) -> None:
    pixels = torch.randint(256, (3, *sides), generator=torch.Generator().manual_seed(0))
    path = tmp_path / "new" / "folder" / "picture.png"
    write_png(path, pixels / 255)
    with Image.open(path) as picture:
        picture.verify()
    with Image.open(path) as picture:
        assert (picture.mode, picture.size) == ("RGB", (sides[1], sides[0]))
        assert np.array_equal(np.asarray(picture), pixels.permute(1, 2, 0).numpy())


def test_values_outside_are_clamped_and_gradients_are_no_matter(tmp_path: Path) -> None:
    image = torch.tensor([-1.0, 0.5, 3.0], dtype=torch.bfloat16).view(3, 1, 1).requires_grad_()
    write_png(tmp_path / "one.png", image)
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.getpixel((0, 0)) == (0, 128, 255)


def test_a_sheet_is_row_by_row_on_white() -> None:
    images = torch.stack([torch.full((3, 2, 4), value / 8) for value in range(5)])
    laid = sheet(images, columns=2, gap=1)
    assert laid.shape == (3, 3 * 3 - 1, 2 * 5 - 1)
    for index in range(5):
        top, left = index // 2 * 3, index % 2 * 5
        assert bool((laid[:, top : top + 2, left : left + 4] == index / 8).all())
    white = torch.ones(8, 9, dtype=torch.bool)
    for top, left in ((0, 0), (0, 5), (3, 0), (3, 5), (6, 0)):
        white[top : top + 2, left : left + 4] = False
    assert bool((laid[:, white] == 1).all())


def test_a_sheet_can_be_larger_than_its_pictures() -> None:
    image = torch.rand(1, 3, 2, 2)
    laid = sheet(image, columns=1, zoom=3)
    assert laid.shape == (3, 6, 6)
    assert torch.equal(laid[:, 1::3, 1::3], image[0])
    assert torch.equal(laid[:, :3, :3], image[0, :, :1, :1].expand(3, 3, 3))
