"""What pictures were cut from: kept when they are scaled, and handed on with every row that is predicted."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from cns_core.captions import CaptionRule
from cns_core.concept import Concept
from cns_core.framing import Framing, centred, told
from cns_core.identity import ModelIdentity
from cns_core.images import Bucketing, bucket_size, fit, images_from_batches, images_from_files
from cns_core.memory import ConceptMemory
from cns_core.methods import METHODS
from cns_core.noised import NoisedPictures
from cns_core.priors import KeptPool
from cns_core.settings import TrainSettings
from cns_core.training import ConceptTrainer, LatentImage, TrainingData

RULE = CaptionRule("own text", "<d>", "dog", own_text="a photo of {}")
SQUARES = Bucketing(64, buckets=False)
CAPTIONS = (("a photo of <new>",), ("a photo of word1",))


def cut(path: Path, width: int, height: int, bucketing: Bucketing, **saved: object) -> Framing:
    Image.new("RGB", (width, height)).save(path, **saved)
    (image, *_), _ = images_from_files([path], RULE, bucketing)
    assert image.framing is not None
    return image.framing


@pytest.mark.parametrize(
    ("width", "height", "framing"),
    [
        (128, 128, Framing((128, 128), (0, 0))),
        (160, 120, Framing((120, 160), (0, 10))),  # 85 x 64, then 64 x 64
        (120, 160, Framing((160, 120), (10, 0))),
        (16, 20, Framing((20, 16), (8, 0))),  # enlarged
        (1600, 1200, Framing((1200, 1600), (0, 10))),  # read at a part of its size
        (4000, 20, Framing((20, 4000), (0, 6368))),  # only its middle is read
    ],
)
def test_a_file_keeps_its_size_and_where_it_was_cut(
    tmp_path: Path, width: int, height: int, framing: Framing
) -> None:
    assert cut(tmp_path / "a.png", width, height, SQUARES) == framing


@pytest.mark.parametrize(("width", "height"), [(1024, 512), (1000, 700), (700, 1000), (900, 300)])
def test_in_a_bucket_only_what_hangs_over_on_one_axis_is_cut(tmp_path: Path, width: int, height: int) -> None:
    framing = cut(tmp_path / "a.png", width, height, Bucketing(512))
    size = bucket_size(height, width, 512, True)
    over = [
        side * max(size[0] / height, size[1] / width) - want
        for side, want in zip((height, width), size, strict=True)
    ]
    assert framing.original == (height, width) and min(framing.crop) == 0
    assert all(abs(crop - more / 2) <= 1 for crop, more in zip(framing.crop, over, strict=True))


def test_a_picture_that_lies_on_its_side_is_told_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert cut(tmp_path / "a.jpg", 160, 120, SQUARES, exif=exif) == Framing((160, 120), (10, 0))


def test_pictures_of_a_batch_are_as_large_as_they_come_and_mirrored_ones_the_same() -> None:
    batches = [torch.rand(2, 64, 96, 3), torch.rand(1, 200, 100, 3)]
    images, _ = images_from_batches(batches, [], RULE, Bucketing(64, buckets=False, flip=True))
    wanted = [Framing((64, 96), (0, 16))] * 2 + [Framing((200, 100), (32, 0))]
    assert [image.framing for image in images] == wanted * 2


@pytest.mark.parametrize("original", [(300, 200), (90, 250), (64, 64), (40, 30)])
def test_the_crop_is_where_the_pixels_were_taken(original: tuple[int, int]) -> None:
    height, width = original
    down, right = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    fitted, _ = fit(torch.stack([down, right, right], dim=2), None, (64, 64))
    crop, scale = centred(original, (64, 64)).crop, max(64 / height, 64 / width)
    for axis, (place, length) in enumerate(zip(crop, original, strict=True)):
        assert float(fitted[32, 32, axis]) * length * scale == pytest.approx(place + 32, abs=1.5)


def test_impossible_framings_are_refused() -> None:
    for original, crop in (((0, 5), (0, 0)), ((5, 5), (0, -1))):
        with pytest.raises(ValueError, match="expected sides of at least 1 and no negative place"):
            Framing(original, crop)


def test_the_digest_of_a_concept_is_about_its_pixels_and_framings_are_told_apart_besides() -> None:
    small = torch.full((1, 64, 64, 3), 0.5)
    concepts = [
        Concept("d", "<d>", "dog", "subject", images_from_batches([batch], [], RULE, SQUARES)[0])
        for batch in (small, torch.full((1, 64, 80, 3), 0.5))
    ]
    first, second = concepts
    assert torch.equal(first.images[0].pixels, second.images[0].pixels)
    assert first.digest() == second.digest() and first.framings() != second.framings()


def test_people_are_told_the_range_and_how_many_are_small() -> None:
    at = (512, 512)
    large, small = Framing((3000, 4000)), Framing((400, 600))
    both = told([(large, at), (small, at), (small, at)])
    assert "600 x 400 to 4000 x 3000 pixels" in both and "2 of 3 were smaller" in both
    assert told([(large, at), (large, at)]).endswith("before it was scaled: 4000 x 3000 pixels.")
    assert "1 of 1 was smaller" in told([(small, at)])


class Watching:
    """A toy whose `predict` keeps what it is told, by row."""

    def __init__(self, toy, monkeypatch):
        self.rows, predict = [], toy.predict

        def watched(z_t, t, features, framings=None):
            assert framings is not None and len(framings) == len(z_t) == len(features.cross)
            self.rows.append(list(framings))
            return predict(z_t, t, features, framings)

        monkeypatch.setattr(toy, "predict", watched)


OWN = [Framing((500, 400), (3, 0)), None, Framing((64, 64)), Framing((64, 65))]
OF_CLASS = [Framing((7, 7)), Framing((8, 8))]


@pytest.fixture
def trained(toy, monkeypatch):
    """Trains on pictures that are told apart by their latents; what was told, and of which pictures."""

    def call(**settings):
        images = tuple(
            LatentImage(torch.full((2, 4, 4), float(i)), *CAPTIONS, None, f) for i, f in enumerate(OWN)
        )
        pool = KeptPool(torch.randn(2, 2, 4, 4), OF_CLASS, ["a photo of word1"] * 2)
        data = TrainingData(images, {(4, 4): pool})
        dense = METHODS["all K/V"]
        nothing = ConceptMemory(ModelIdentity("toy", "0"), toy.layout)
        adaptation = dense.start(None, nothing, dense.Training(), toy.device)
        train = TrainSettings(steps=6, batch_size=3, seed=2, **settings)
        vectors = {"toy": torch.linspace(-1, 1, 24)[None]}
        trainer, shown, watching = (
            ConceptTrainer(toy, data, adaptation, vectors, train),
            [],
            Watching(toy, monkeypatch),
        )
        noised = trainer._noised

        def watched(images, captions):
            shown.append([OWN[int(image.latents[0, 0, 0])] for image in images])
            return noised(images, captions)

        trainer._noised = watched
        trainer.run()
        return watching.rows, shown

    return call


def test_the_loop_hands_on_what_each_row_was_cut_from(trained):
    rows, shown = trained(prior="none")
    assert rows == shown and {framing for batch in shown for framing in batch} == {*OWN}


def test_the_image_free_prior_is_about_the_same_pictures(trained):
    rows, shown = trained(prior="image-free")
    assert rows == [told for batch in shown for told in (batch, batch * 2)], "the untouched model, then both"


def test_class_images_have_framings_of_their_own(trained):
    rows, shown = trained(prior="given class images")
    assert [row[:3] for row in rows] == shown
    assert {framing for row in rows for framing in row[3:]} == {*OF_CLASS}


def test_pictures_that_are_noised_once_keep_theirs(toy, monkeypatch):
    toy.known = {"<new>": torch.zeros(24)}
    images = [LatentImage(torch.randn(2, 4, 4), *CAPTIONS, None, framing) for framing in OWN]
    pictures, watching = NoisedPictures(toy, images, 6, 0, masked=False), Watching(toy, monkeypatch)
    list(pictures.errors())
    assert watching.rows == [[*OWN, *OWN[:2]]]
