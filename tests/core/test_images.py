"""Picture files and IMAGE batches to training images, good ones and bad ones."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile, PngImagePlugin

from cns_core.captions import CaptionRule
from cns_core.concept import TrainingImage
from cns_core.images import (
    SHOWS_CONCEPT,
    SHOWS_REST,
    Bucketing,
    bucket_size,
    fit,
    flipped,
    images_from_batches,
    images_from_files,
    thumbnails,
)
from cns_core.picture_files import list_images, load_image, told_left_out

RULE = CaptionRule("own text", "<d>", "dog", own_text="a photo of {}")
SMALL = Bucketing(resolution=64)


def ramp(height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8; red grows to the right, green downwards, blue is 128."""
    red = np.broadcast_to(np.linspace(0, 255, width)[None, :], (height, width))
    green = np.broadcast_to(np.linspace(0, 255, height)[:, None], (height, width))
    return np.stack([red, green, np.full((height, width), 128.0)], axis=2).astype(np.uint8)


def save(path: Path, height: int = 96, width: int = 128) -> Path:
    Image.fromarray(ramp(height, width)).save(path)
    return path


# --- folders


def test_list_images_takes_what_pillow_reads_and_names_the_rest(tmp_path: Path) -> None:
    pictures = ["a.jpg", "b.PNG", "c.jpeg", "d.webp", "e.bmp", "f.tif", "g.TIFF", "h.jfif", "i.JPE", "j.gif"]
    for name in (*reversed(pictures), "k.heic", "l.eps", "m.mp4"):
        (tmp_path / name).touch()
    for name in (".hidden.png", "._a.jpg", "a.txt", "a.caption", "a.npz", "Thumbs.db"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "z.png").touch()
    found, left_out = list_images(tmp_path)
    assert [path.name for path in found] == pictures
    assert left_out == ["k.heic", "l.eps", "m.mp4"]  # no plugin for the first one is registered here
    (note,) = told_left_out(left_out)
    assert "k.heic, l.eps, m.mp4" in note and "pillow-heif" in note
    assert told_left_out([]) == [] and "pillow-heif" not in told_left_out(["l.eps"])[0]


def test_a_format_that_a_plugin_has_added_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.init()
    monkeypatch.setitem(Image.EXTENSION, ".heic", "PNG")  # as pillow-heif does, with a format of its own
    save(tmp_path / "a.png").rename(tmp_path / "a.heic")
    (path,) = list_images(tmp_path)[0]
    assert load_image(path)[0].shape == (96, 128, 3)


def test_a_folder_without_pictures_says_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"whatever else Pillow reads.*found an empty folder"):
        list_images(tmp_path)
    for name in ("a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "Sub").mkdir()
    with pytest.raises(ValueError, match=r"found Sub/, a.mp4, b.mp4 and 3 more"):
        list_images(tmp_path)


def test_a_missing_folder_and_a_file_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found nothing there"):
        list_images(tmp_path / "none")
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match="found a file there"):
        list_images(tmp_path / "a.png")


# --- single files


def test_rgb_is_exact(tmp_path: Path) -> None:
    pixels, mask, _ = load_image(save(tmp_path / "a.png", 40, 50))
    assert pixels.dtype == torch.float32 and mask is None
    assert torch.equal(pixels, torch.from_numpy(ramp(40, 50)).float() / 255)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "bmp", "tif"])
def test_other_formats(tmp_path: Path, suffix: str) -> None:
    pixels, mask, _ = load_image(save(tmp_path / f"a.{suffix}", 40, 50))
    assert mask is None
    assert (pixels - torch.from_numpy(ramp(40, 50)).float() / 255).abs().mean() < 0.03


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter clockwise
    Image.fromarray(ramp(40, 50)).save(tmp_path / "a.png", exif=exif)
    pixels, *_ = load_image(tmp_path / "a.png")
    assert torch.equal(pixels, torch.from_numpy(ramp(40, 50).copy()).float().div(255).rot90(-1))


def test_grey_becomes_rgb(tmp_path: Path) -> None:
    grey = ramp(40, 50)[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    pixels, mask, _ = load_image(tmp_path / "a.png")
    assert mask is None
    assert torch.equal(pixels, torch.from_numpy(grey.copy()).float()[:, :, None].div(255).expand(40, 50, 3))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    grey = np.linspace(0, 65535, 40 * 50).reshape(40, 50).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / f"a.{suffix}")
    pixels, mask, _ = load_image(tmp_path / f"a.{suffix}")
    assert mask is None and pixels.shape == (40, 50, 3)
    assert torch.allclose(pixels[..., 1], torch.from_numpy(grey.astype(np.float32) / 65535), atol=1e-6)


def test_wide_integers_and_floats(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 40 * 50).reshape(40, 50)
    Image.fromarray(grey.astype(np.int32)).save(tmp_path / "i.tif")
    Image.fromarray((grey / 65535).astype(np.float32)).save(tmp_path / "f.tif")
    for name in ("i.tif", "f.tif"):
        assert torch.allclose(
            load_image(tmp_path / name)[0][..., 0], torch.from_numpy(grey / 65535).float(), atol=2e-5
        )
    Image.fromarray((grey * 9).astype(np.int32)).save(tmp_path / "too-wide.tif")
    Image.fromarray(np.full((40, 50), np.nan, np.float32)).save(tmp_path / "nan.tif")
    for name in ("too-wide.tif", "nan.tif"):
        with pytest.raises(ValueError, match=rf"{name} holds numbers from (0 to 589815|nan to nan)"):
            load_image(tmp_path / name)


def test_palette_cmyk_and_one_bit(tmp_path: Path) -> None:
    red = Image.new("RGB", (50, 40), (255, 0, 0))
    red.convert("P").save(tmp_path / "p.png")
    red.convert("CMYK").save(tmp_path / "cmyk.tif")
    Image.new("1", (50, 40), 1).save(tmp_path / "one.png")
    for name in ("p.png", "cmyk.tif"):
        pixels, mask, _ = load_image(tmp_path / name)
        assert mask is None and torch.equal(pixels, torch.tensor([1.0, 0.0, 0.0]).expand(40, 50, 3))
    assert torch.equal(load_image(tmp_path / "one.png")[0], torch.ones(40, 50, 3))


def test_alpha_is_put_on_white_and_kept_as_mask(tmp_path: Path) -> None:
    rgba = np.zeros((40, 50, 4), np.uint8)
    rgba[:, 25:] = (0, 0, 255, 255)
    rgba[:, 20:25] = (0, 0, 255, 51)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    pixels, mask, _ = load_image(tmp_path / "a.png")
    assert mask is not None
    assert torch.equal(mask, torch.from_numpy(rgba[..., 3].copy()).float() / 255)
    assert torch.equal(pixels[:, :20], torch.ones(40, 20, 3))
    assert torch.allclose(pixels[:, 20:25], torch.tensor([0.8, 0.8, 1.0]).expand(40, 5, 3))
    assert torch.equal(pixels[:, 25:], torch.tensor([0.0, 0.0, 1.0]).expand(40, 25, 3))


def test_opaque_alpha_gives_no_mask(tmp_path: Path) -> None:
    Image.new("RGBA", (50, 40), (10, 20, 30, 255)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png")[1] is None


def test_grey_alpha_and_palette_transparency(tmp_path: Path) -> None:
    Image.new("LA", (50, 40), (100, 0)).save(tmp_path / "la.png")
    palette = Image.new("P", (50, 40), 1)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "p.png", transparency=1)
    for name in ("la.png", "p.png"):
        pixels, mask, _ = load_image(tmp_path / name)
        assert mask is not None and not mask.any()
        assert torch.equal(pixels, torch.ones(40, 50, 3))


def test_a_truncated_file_is_an_error_even_when_pillow_was_told_to_accept_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "a.png"):
        Image.fromarray(rng.integers(0, 255, (200, 200, 3), np.uint8)).save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        for accepted in (False, True):
            monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", accepted)
            with pytest.raises(ValueError, match=rf"{name} cannot be read.*cut short.*save it"):
                load_image(tmp_path / name)
            assert ImageFile.LOAD_TRUNCATED_IMAGES is accepted


def test_a_jpeg_that_lacks_its_end_marker_alone_is_whole(tmp_path: Path) -> None:
    Image.fromarray(ramp(96, 128)).save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    assert data.endswith(b"\xff\xd9")
    (tmp_path / "a.jpg").write_bytes(data[:-2])
    assert torch.equal(load_image(tmp_path / "a.jpg")[0], load_image(tmp_path / "whole.jpg")[0])
    (tmp_path / "short.jpg").write_bytes(data[:-40])
    with pytest.raises(ValueError, match=r"short\.jpg cannot be read.*cut short"):
        load_image(tmp_path / "short.jpg")
    with pytest.raises(ValueError, match=r"128 x 96.*expected at most 100 pixels"):
        load_image(tmp_path / "a.jpg", 100)


def test_much_text_in_a_png_is_no_fault(tmp_path: Path) -> None:
    workflow = PngImagePlugin.PngInfo()
    workflow.add_text("workflow", "x" * 3_000_000, zip=True)
    Image.fromarray(ramp(96, 128)).save(tmp_path / "a.png", pnginfo=workflow)
    before = PngImagePlugin.MAX_TEXT_CHUNK
    assert load_image(tmp_path / "a.png")[0].shape == (96, 128, 3)
    assert before == PngImagePlugin.MAX_TEXT_CHUNK


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_not_a_picture(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png cannot be read as a picture"):
        load_image(tmp_path / "a.png")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.png: there is no such file"):
        load_image(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("side", "pillow_limit"), [(60_000, "default"), (10_000, "default"), (60_000, None)])
def test_a_decompression_bomb_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, pillow_limit: str | None
) -> None:
    if pillow_limit is None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(ValueError, match=r"bomb\.png is too large"):
        load_image(tmp_path / "bomb.png")


def test_the_pixel_limit_is_the_last_size_accepted(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", 40, 50)
    load_image(path, 2000)
    with pytest.raises(ValueError, match=r"50 x 40.*expected at most 1,999 pixels"):
        load_image(path, 1999)


def test_the_smallest_side(tmp_path: Path) -> None:
    assert load_image(save(tmp_path / "ok.png", 16, 40))[0].shape == (16, 40, 3)
    with pytest.raises(ValueError, match=r"small\.png is 40 x 15 pixels, expected at least 16"):
        load_image(save(tmp_path / "small.png", 15, 40))


# --- sizes


@given(
    st.integers(1, 20_000),
    st.integers(1, 20_000),
    st.integers(1, 32).map(lambda n: 64 * n),
    st.booleans(),
)
def test_bucket_size(height: int, width: int, resolution: int, buckets: bool) -> None:
    h, w = bucket_size(height, width, resolution, buckets)
    assert h % 64 == w % 64 == 0 and h >= 64 and w >= 64
    assert 0.5 <= w / h <= 2.0
    assert (w, h) == bucket_size(width, height, resolution, buckets)
    if not buckets or height == width:
        assert (h, w) == (resolution, resolution)
    elif resolution >= 256:
        assert 0.8 <= h * w / resolution**2 <= 1.25
        aspect = min(max(width / height, 0.5), 2.0)
        assert 0.75 <= (w / h) / aspect <= 1.34


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(1000, 1500, (448, 640)), (1080, 1920, (384, 704)), (100, 5000, (384, 704)), (700, 720, (512, 512))],
)
def test_bucket_size_examples(height: int, width: int, size: tuple[int, int]) -> None:
    assert bucket_size(height, width, 512, True) == size


@pytest.mark.parametrize("resolution", [0, -64, 32, 500, 2112])
def test_bad_resolutions(resolution: int) -> None:
    with pytest.raises(
        ValueError, match=f"Resolution {resolution}: expected a multiple of 64 from 64 to 2048"
    ):
        Bucketing(resolution=resolution)
    with pytest.raises(ValueError, match="Use "):
        bucket_size(64, 64, resolution, True)


def test_bad_sides_and_steps() -> None:
    for height, width, step in ((0, 5, 64), (5, -1, 64), (5, 5, 0), (5, 5, 48)):
        with pytest.raises(ValueError, match="a step that divides"):
            bucket_size(height, width, 512, True, step)


# --- fitting


def test_fit_leaves_a_picture_of_the_right_size_alone() -> None:
    pixels = torch.rand(64, 128, 3, generator=torch.Generator().manual_seed(0))
    mask = pixels[..., 0]
    fitted, fitted_mask = fit(pixels, mask, (64, 128))
    assert fitted_mask is not None
    assert torch.allclose(fitted, pixels, atol=1e-6) and torch.allclose(fitted_mask, mask, atol=1e-6)


def test_fit_crops_the_centre_without_stretching() -> None:
    pixels = torch.zeros(100, 300, 3)
    pixels[30:70, 130:170] = 1.0  # a 40 x 40 square in the middle
    fitted, fitted_mask = fit(pixels, pixels[..., 0], (64, 64))
    assert fitted_mask is not None
    assert torch.equal(fitted[..., 0], fitted_mask)
    seen = fitted_mask > 0.5
    assert abs(int(seen.any(0).sum()) - 26) <= 1 and abs(int(seen.any(1).sum()) - 26) <= 1
    assert torch.allclose(fitted_mask, fitted_mask.flip(1), atol=0.05)


def test_fit_is_antialiased() -> None:
    stripes = (
        torch.arange(512) % 8 == 0
    ).float()  # sampled without a filter, these vanish or fill the picture
    fitted, _ = fit(stripes[None, :, None].expand(512, 512, 3), None, (64, 64))
    assert (fitted[:, 4:-4] - 1 / 8).abs().max() < 0.05


@given(st.integers(16, 300), st.integers(16, 300), st.sampled_from([(64, 64), (64, 128), (128, 64), (50, 7)]))
def test_fit_gives_the_size_asked_for(height: int, width: int, size: tuple[int, int]) -> None:
    fitted, mask = fit(torch.ones(height, width, 3), torch.ones(height, width), size)
    assert mask is not None
    assert fitted.shape == (*size, 3) and mask.shape == size
    assert torch.allclose(fitted, torch.ones(()), atol=1e-5) and fitted.max() <= 1.0
    assert torch.allclose(mask, torch.ones(()), atol=1e-5)


def test_fit_of_a_long_strip_does_not_grow_it_first() -> None:
    fitted, _ = fit(torch.zeros(16, 100_000, 3), None, (2048, 2048))  # scaled first: 300 GB
    assert fitted.shape == (2048, 2048, 3)


# --- building


def test_one_file(tmp_path: Path) -> None:
    images, notes = images_from_files([save(tmp_path / "a.png", 128, 128)], RULE, SMALL)
    assert [(i.source, i.captions, i.mask) for i in images] == [("a.png", ("a photo of <d>",), None)]
    assert images[0].pixels.shape == (64, 64, 3) and notes == []


def test_300_files_with_captions_beside_them(tmp_path: Path) -> None:
    for index in range(300):
        path = save(tmp_path / f"{index:03}.png", 20 + index % 90, 100)
        path.with_suffix(".txt").write_text(f"dog number {index}", encoding="utf-8")
    rule = CaptionRule("txt files", "<d>", "dog")
    images, notes = images_from_files(list_images(tmp_path)[0], rule, Bucketing(resolution=128, flip=True))
    assert len(images) == 600
    assert images[299].captions == images[599].captions == ("<d> number 299",)
    assert len({tuple(image.pixels.shape) for image in images}) > 1
    assert any("and" in note and "more" in note for note in notes) and all(len(note) < 300 for note in notes)
    assert notes[-1] == "Mirrored copies added: 300 pictures became 600."
    assert thumbnails(images[:300], 32).shape == (300, 32, 32, 3)


def test_no_files() -> None:
    with pytest.raises(ValueError, match="0 pictures given"):
        images_from_files([], RULE, SMALL)


def test_a_tiny_picture_is_enlarged_with_a_note(tmp_path: Path) -> None:
    images, notes = images_from_files([save(tmp_path / "icon.png", 20, 20)], RULE, Bucketing(512))
    assert images[0].pixels.shape == (512, 512, 3)
    assert len(notes) == 1 and "enlarged" in notes[0] and "icon.png (20 x 20, 25.6 times)" in notes[0]


def test_a_wide_picture_is_cropped_with_a_note(tmp_path: Path) -> None:
    _, notes = images_from_files([save(tmp_path / "wide.png", 100, 1000)], RULE, SMALL)
    assert len(notes) == 1 and "Cropped" in notes[0] and "wide.png (1000 x 100, 10% kept)" in notes[0]


def test_alpha_becomes_the_mask_with_a_note(tmp_path: Path) -> None:
    rgba = np.zeros((128, 128, 4), np.uint8)
    rgba[:, 64:, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    images, notes = images_from_files([tmp_path / "a.png"], RULE, Bucketing(64, flip=True))
    for image, half in zip(images, (slice(33, 64), slice(0, 31)), strict=True):
        assert image.mask is not None
        assert image.mask[:, half].min() > 0.9 and 0.4 < image.mask.mean() < 0.6
    assert "transparent" in notes[0] and "a.png" in notes[0]


def test_a_picture_with_nothing_visible_is_an_error(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: the mask .*0 in the whole 64 x 64"):
        images_from_files([tmp_path / "a.png"], RULE, SMALL)


def test_one_bad_file_among_good_ones_is_named(tmp_path: Path) -> None:
    paths = [save(tmp_path / "a.png"), tmp_path / "bad.png", save(tmp_path / "c.png")]
    paths[1].write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"bad\.png cannot be read"):
        images_from_files(paths, RULE, SMALL)


def test_a_batch() -> None:
    batch = torch.rand(3, 64, 128, 3, generator=torch.Generator().manual_seed(0))
    images, notes = images_from_batches([batch], [], RULE, Bucketing(64, buckets=False, flip=True))
    assert [image.source for image in images[:2]] == ["picture 1 of 3", "picture 2 of 3"]
    assert len(images) == 6 and images[3].source == "picture 1 of 3 (mirrored)"
    assert torch.allclose(images[1].pixels, batch[1, :, 32:96], atol=1e-6)
    assert len(notes) == 2 and "50% kept" in notes[0]


def test_a_batch_is_never_changed_or_shared() -> None:
    batch = torch.full((1, 64, 64, 3), 0.5)
    images, _ = images_from_batches([batch], [], RULE, SMALL)
    batch.zero_()
    assert torch.allclose(images[0].pixels, torch.tensor(0.5))


@pytest.mark.parametrize("shape", [(2, 64, 64), (1, 64, 64), (64, 64)])
def test_a_batch_with_a_mask(shape: tuple[int, ...]) -> None:
    mask = torch.zeros(shape)
    mask[..., :32] = 1.0
    images, notes = images_from_batches([torch.rand(2, 64, 64, 3)], [mask], RULE, SMALL)
    for image in images:
        assert image.mask is not None and torch.allclose(image.mask, mask.reshape(-1, 64, 64)[0], atol=1e-6)
    assert "picture 1 of 2, picture 2 of 2" in notes[0]


def test_a_batch_with_alpha() -> None:
    batch = torch.zeros(2, 64, 64, 4)
    batch[0, :, :32, 3] = 1.0
    batch[1, ..., 3] = 1.0
    images, _ = images_from_batches([batch], [], RULE, SMALL)
    assert images[0].mask is not None and images[1].mask is None
    assert torch.equal(images[0].pixels[:, 40:], torch.ones(64, 24, 3))
    masked, _ = images_from_batches([batch], [torch.ones(1, 64, 64)], RULE, SMALL)
    assert masked[0].mask is not None and masked[0].mask.min() > 0.99


def test_a_cut_out_is_the_same_from_a_file_and_from_load_image(tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 255, (64, 64, 4), dtype=np.uint8)
    rgba[:, :32, 3], rgba[:, 32:, 3] = 255, 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    ((from_file,), _) = images_from_files([tmp_path / "a.png"], RULE, SMALL)
    data = torch.from_numpy(rgba).float() / 255
    image, mask = data[None, ..., :3], 1 - data[None, ..., 3]  # as the host's node gives them
    ((from_node,), notes) = images_from_batches([image], [mask], RULE, SMALL, SHOWS_REST)
    assert from_file.mask is not None and from_node.mask is not None
    assert torch.equal(from_file.pixels, from_node.pixels) and torch.equal(from_file.mask, from_node.mask)
    assert bool(from_node.mask[:, :31].all()) and not from_node.mask[:, 33:].any()
    assert "transparent parts are white" in notes[-1]
    ((painted,), _) = images_from_batches([image], [1 - mask], RULE, SMALL, SHOWS_CONCEPT)
    assert painted.mask is not None and torch.equal(painted.mask, from_node.mask)
    assert not torch.equal(painted.pixels, from_node.pixels)  # what is behind the concept stays


def test_an_opaque_picture_of_load_image_has_no_mask() -> None:
    ((image,), _) = images_from_batches(
        [torch.rand(1, 128, 128, 3)], [torch.zeros(1, 64, 64)], RULE, SMALL, SHOWS_REST
    )
    assert image.mask is None


def test_batches_of_several_sizes_are_one_concept() -> None:
    batches = [torch.full((1, 64, 128, 3), 0.25), torch.full((2, 128, 64, 3), 0.5)]
    images, _ = images_from_batches(batches, [], RULE, SMALL)
    assert [image.source for image in images] == [f"picture {n} of 3" for n in (1, 2, 3)]
    assert [float(image.pixels.mean()) for image in images] == [0.25, 0.5, 0.5]
    own = [torch.ones(1, 64, 128), torch.ones(2, 128, 64)]
    assert all(image.mask is not None for image in images_from_batches(batches, own, RULE, SMALL)[0])
    with pytest.raises(ValueError, match="3 MASKs came with 2 IMAGEs"):
        images_from_batches(batches, [*own, own[0]], RULE, SMALL)


def test_half_precision_and_overshoot_are_accepted() -> None:
    batch = torch.full((1, 64, 64, 3), 1.004, dtype=torch.float16, requires_grad=True)
    images, _ = images_from_batches([batch], [], RULE, SMALL)
    assert images[0].pixels.max() <= 1.0 and not images[0].pixels.requires_grad


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (torch.zeros(64, 64, 3), r"\(64, 64, 3\), expected"),
        (torch.zeros(0, 64, 64, 3), "at least one picture"),
        (torch.zeros(1, 3, 64, 64), r"\(1, 3, 64, 64\), expected"),
        (torch.zeros(1, 64, 64, 1), "3 or 4"),
        (torch.full((1, 64, 64, 3), float("nan")), "NaN"),
        (torch.full((1, 64, 64, 3), float("inf")), "infinity"),
        (torch.full((1, 64, 64, 3), 255.0), "ranges from 255 to 255"),
        (torch.full((1, 64, 64, 3), -1.0), "ranges from -1"),
        (torch.zeros(1, 64, 64, 3, dtype=torch.uint8), "torch.uint8"),
        (torch.zeros(1, 8, 64, 3), "64 x 8 pixels, expected at least 16"),
        (torch.zeros(1, 0, 64, 3), "64 x 0 pixels"),
    ],
)
def test_bad_batches(batch: torch.Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        images_from_batches([batch], [], RULE, SMALL)


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (torch.zeros(2, 64, 64), r"\(2, 64, 64\), expected \(3 or 1, 128, 128\)"),
        (torch.zeros(1, 64, 64), "leave that one unconnected"),
        (torch.zeros(128), "MASK has shape"),
        (torch.full((1, 128, 128), float("nan")), "MASK holds NaN"),
        (torch.full((1, 128, 128), 2.0), "MASK ranges from 2"),
        (torch.zeros(1, 128, 128), "picture 1 of 3: the mask.*invert the mask"),
    ],
)
def test_bad_masks(mask: torch.Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        images_from_batches([torch.zeros(3, 128, 128, 3)], [mask], RULE, SMALL)


def test_captions_from_files_need_files() -> None:
    with pytest.raises(ValueError, match="have no files beside them"):
        images_from_batches([torch.zeros(1, 64, 64, 3)], [], CaptionRule("txt files", "<d>", "dog"), SMALL)


# --- showing


def training_image(height: int, width: int) -> TrainingImage:
    pixels = torch.ones(height, width, 3)
    pixels[:, : width // 2] = 0.5
    return TrainingImage(pixels, ("<d>",), pixels[..., 0].clone(), "a.png")


def test_flipped_twice_is_the_same() -> None:
    image = training_image(64, 128)
    once = flipped(image)
    assert once.mask is not None and torch.equal(once.pixels[..., 0], once.mask)
    assert torch.equal(once.pixels[:, :64], torch.ones(64, 64, 3)) and "mirrored" in once.source
    assert torch.equal(flipped(once).pixels, image.pixels)


def test_thumbnails_mixes_buckets_without_cropping() -> None:
    sheet = thumbnails([training_image(64, 128), training_image(128, 64), training_image(64, 64)], 100)
    assert sheet.shape == (3, 100, 100, 3) and sheet.min() >= 0.0 and sheet.max() <= 1.0
    shown = sheet[..., 0] > 0.25
    assert shown[0].any(1).sum() == 50 and shown[0].any(0).sum() == 100
    assert shown[1].any(1).sum() == 100 and shown[1].any(0).sum() == 50
    assert shown[2].all()


def test_thumbnails_errors() -> None:
    with pytest.raises(ValueError, match="0 pictures at size 256"):
        thumbnails([])
    with pytest.raises(ValueError, match="1 pictures at size 0"):
        thumbnails([training_image(64, 64)], 0)


def test_what_only_other_programs_read_is_no_picture_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n")
    with pytest.raises(ValueError, match=r"a\.png cannot be read as a picture"):
        load_image(tmp_path / "a.png")
    (tmp_path / "b.eps").write_bytes((tmp_path / "a.png").read_bytes())
    assert list_images(tmp_path) == ([tmp_path / "a.png"], ["b.eps"])


def test_links_to_files_elsewhere_are_left_out(tmp_path: Path) -> None:
    inside, outside = tmp_path / "photos", tmp_path / "private"
    inside.mkdir()
    outside.mkdir()
    save(inside / "a.png", 64, 64)
    save(outside / "secret.png", 64, 64)
    (inside / "b.png").symlink_to(outside / "secret.png")
    (inside / "c.png").symlink_to("a.png")
    assert list_images(inside) == ([inside / "a.png", inside / "c.png"], ["b.png"])
    (tmp_path / "linked").symlink_to(inside)  # a whole folder is linked by the machine's owner alone
    assert list_images(tmp_path / "linked")[1] == ["b.png"]
    (outside / "words").write_text("a secret")
    (inside / "a.txt").symlink_to(outside / "words")
    with pytest.raises(ValueError, match=r"a\.txt is a link to a file elsewhere"):
        CaptionRule("txt files", "<d>", "dog").captions_for(inside / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp"])
def test_a_large_picture_is_brought_near_its_size_while_it_has_eight_bits(
    tmp_path: Path, suffix: str
) -> None:
    rows = torch.linspace(0, 255, 1200).round().byte()
    pixels = torch.stack([rows[:, None].expand(1200, 1600), rows[None].T.expand(1200, 1600).flip(0)] * 2, -1)
    Image.fromarray(pixels[..., :3].contiguous().numpy()).save(tmp_path / f"a.{suffix}", quality=95)
    whole = load_image(tmp_path / f"a.{suffix}")
    small = load_image(tmp_path / f"a.{suffix}", room=128)
    assert small.size == whole.size == (1200, 1600) and whole.pixels.shape == (1200, 1600, 3)
    assert 2 * 128 <= min(small.pixels.shape[:2]) <= 600
    a, b = (fit(picture.pixels, None, (96, 128))[0] for picture in (whole, small))
    assert (a - b).abs().max() < 0.02


def test_a_picture_that_lies_on_its_side_keeps_its_own_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (1600, 1200)).save(tmp_path / "a.jpg", exif=exif)
    for room in (None, 128):
        picture = load_image(tmp_path / "a.jpg", room=room)
        assert picture.size == (1600, 1200) and picture.pixels.shape[0] > picture.pixels.shape[1]


def test_of_a_strip_the_middle_is_kept(tmp_path: Path) -> None:
    strip = Image.new("L", (4000, 20))
    strip.paste(255, (1990, 0, 2010, 20))
    strip.save(tmp_path / "a.png")
    picture = load_image(tmp_path / "a.png")
    assert picture.pixels.shape == (20, 80, 3) and picture.size == (20, 4000)
    assert picture.pixels[:, 30:50].min() == 1 and picture.pixels.mean() == 0.25
    _, notes = images_from_files([tmp_path / "a.png"], RULE, SMALL)
    assert "a.png (4000 x 20, 1% kept)" in " ".join(notes)


def test_what_the_pictures_would_take_is_known_before_they_are_read(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(2000)]  # none of them is there
    with pytest.raises(ValueError, match=r"2000 pictures at resolution 1024, mirrored too, take 50.3 GB"):
        images_from_files(paths, RULE, Bucketing(1024, flip=True), most_bytes=8e9)
    with pytest.raises(ValueError, match="3 pictures at resolution 1024 take"):
        images_from_batches([torch.zeros(3, 64, 64, 3)], [], RULE, Bucketing(1024), most_bytes=1e6)


def test_a_sheet_of_many_pictures_stays_small() -> None:
    sheet = thumbnails([training_image(64, 64)] * 2000)
    assert sheet.numel() * 4 <= 2**26 and sheet.shape[0] == 2000 and sheet.shape[1] >= 32
