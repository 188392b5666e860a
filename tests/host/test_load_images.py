"""LoadConceptImages: pictures, captions, masks and names, and what is told of them."""

import os

import pytest
import torch
from PIL import Image
from stopping import PICTURES


def test_load_from_a_folder(run, photos):
    concept, images, text, masks = run(
        "LoadConceptImages", name="my dog", class_word="dog", folder="dog", resolution=128
    )
    assert concept.token == "<my-dog>" and len(concept.images) == 3
    assert images.shape == (3, 256, 256, 3) and "<my-dog>" in text and "3 training images" in text
    assert torch.equal(masks, images) and "No masks" in text


def test_load_from_a_batch_with_mask_flip_and_own_text(run):
    concept, images, _, _ = run(
        "LoadConceptImages",
        name="x",
        class_word="mug",
        token="<mine>",
        images=torch.rand(2, 64, 64, 3),
        mask=torch.ones(1, 64, 64),
        mask_shows="the concept",
        resolution=64,
        flip=True,
        caption_source="own text",
        caption="a photo of {}",
    )
    assert len(concept.images) == 4 and len(images) == 4 and concept.images[0].mask is not None
    assert concept.images[0].captions == ("a photo of <mine>",)


def test_a_list_of_pictures_is_one_concept(run):
    listed = [torch.rand(1, 64, 128, 3), torch.rand(2, 128, 64, 3)]
    concept, images, text, _ = run(
        "LoadConceptImages", name="x", class_word="mug", images=listed, resolution=64, buckets=False
    )
    assert len(concept.images) == len(images) == 3 and "3 training images" in text


def test_a_list_where_one_value_is_meant_is_refused(run):
    with pytest.raises(ValueError, match="name came as a list of 2; one value was expected"):
        run("LoadConceptImages", name=["a", "b"], class_word="mug", images=torch.rand(1, 64, 64, 3))


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("nowhere", "no folder 'nowhere'.*dog"),
        ("../models", "outside ComfyUI's input directory"),
        ("dog/../..", "outside ComfyUI's input directory"),
        ("/etc", "outside ComfyUI's input directory"),
        ("hollow", "no picture"),
        ("", "No folder is named"),
    ],
)
def test_bad_folders_fail_before_anything_runs(nodes, run, photos, folder, message):
    (photos / "hollow").mkdir(exist_ok=True)
    verdict = nodes["LoadConceptImages"].validate_inputs(folder=[folder])
    assert isinstance(verdict, str)
    with pytest.raises(ValueError, match=message) as caught:
        run("LoadConceptImages", name="x", class_word="dog", folder=folder)
    assert verdict == str(caught.value)


def test_a_folder_that_the_owner_has_linked_is_read(nodes, run, photos, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    Image.new("RGB", (64, 64), "teal").save(elsewhere / "a.png")
    (elsewhere / "b").mkdir()
    for name, target in (("linked", elsewhere), ("linked_again", elsewhere / "b")):
        if not (photos / name).is_symlink():
            os.symlink(target, photos / name)
    assert nodes["LoadConceptImages"].validate_inputs(folder=["linked"]) is True
    concept = run("LoadConceptImages", name="x", class_word="dog", folder="linked", resolution=64)[0]
    assert [image.source for image in concept.images] == ["a.png"]
    # The way up goes by names, so that a link is no way out.
    for folder in ("linked_again/..", "linked/../linked", "linked\\..\\linked", "."):
        assert "outside" in nodes["LoadConceptImages"].validate_inputs(folder=[folder])


def test_names_that_would_become_one_token_are_refused_when_queued(nodes, photos):
    check = nodes["LoadConceptImages"].validate_inputs
    refused = check(folder=["dog"], name=["собака 2"], token=[""])
    assert isinstance(refused, str) and "Write a token yourself" in refused
    assert check(folder=["dog"], name=["собака 2"], token=["<dog-2>"]) is True
    assert check(folder=["dog"], name=["my dog"], token=[""]) is True
    assert check(folder=["dog"], name=[None], token=[""]) is True  # a name from another node


def test_masks_beside_pictures_are_shown_and_are_no_pictures(nodes, run, host_base):
    place = host_base / "input" / "masked"
    place.mkdir(exist_ok=True)
    for name in ("a", "b"):
        Image.new("RGB", (64, 64), "white").save(place / f"{name}.png")
    given = {"name": "dog", "class_word": "dog", "folder": "masked", "resolution": 64}
    plain = nodes["LoadConceptImages"].fingerprint_inputs(folder=["masked"])
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    mask.save(place / "a-masklabel.png")
    masked = nodes["LoadConceptImages"].fingerprint_inputs(folder=["masked"])
    concept, images, text, masks = run("LoadConceptImages", **given)
    assert [(image.source, image.mask is None) for image in concept.images] == [
        ("a.png", False),
        ("b.png", True),
    ]
    assert torch.equal(masks[1], images[1]) and torch.allclose(masks[0, :, 140:], images[0, :, 140:])
    assert masks[0, :, :120].max() < 0.7 and images.min() > 0.99
    assert "Masks keep 50% of 1 picture; of 1 picture without one" in text and "a-masklabel.png" in text
    mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(place / "a-masklabel.png")
    os.utime(place / "a-masklabel.png", (1, 1))
    assert len({plain, masked, nodes["LoadConceptImages"].fingerprint_inputs(folder=["masked"])}) == 3
    assert run("LoadConceptImages", **given)[0].digest() != concept.digest()
    (place / ".cns.lock").touch()  # hidden files are nothing that is read
    again = nodes["LoadConceptImages"].fingerprint_inputs(folder=["masked"])
    (place / ".cns.lock").unlink()
    assert again == nodes["LoadConceptImages"].fingerprint_inputs(folder=["masked"])


def test_a_folder_from_another_node_is_no_fault(nodes):
    node = nodes["LoadConceptImages"]
    assert node.validate_inputs(folder=[None], name=["my dog"], token=[""]) is True
    assert node.fingerprint_inputs(folder=[None]) == node.fingerprint_inputs(folder=["(none)"])


def test_every_caption_of_a_file_is_shown(run, host_base):
    place = host_base / "input" / "captioned"
    place.mkdir(exist_ok=True)
    Image.new("RGB", (64, 64)).save(place / "a.png")
    (place / "a.txt").write_text("a dog in snow\na dog at night\n", encoding="utf-8")
    given = {"name": "dog", "class_word": "dog", "folder": "captioned", "resolution": 64}
    text = run("LoadConceptImages", **given, caption_source="txt files")[2]
    assert "`a <dog> in snow a dog at night`" in text
    text = run("LoadConceptImages", **given, caption_source="txt files", caption_file="a caption a line")[2]
    assert "`a <dog> in snow` / `a <dog> at night`" in text


def test_reading_shows_progress_and_can_be_cancelled(comfy, run, photos, hook):
    seen = []

    def watch(value, total, preview, node_id=None):
        seen.append((value, total))
        if value == 2:
            comfy.model_management.interrupt_current_processing()

    hook(watch)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run("LoadConceptImages", name="x", class_word="dog", folder="dog", resolution=64)
    assert seen == [(1, PICTURES), (2, PICTURES)]


def test_no_pictures_or_two_sources(run, photos):
    with pytest.raises(ValueError, match="choose a folder"):
        run("LoadConceptImages", name="x", class_word="dog")
    with pytest.raises(ValueError, match="unplug images"):
        run("LoadConceptImages", name="x", class_word="dog", folder="dog", images=torch.rand(1, 64, 64, 3))


def test_the_fingerprint_changes_with_the_files_and_only_then(nodes, photos):
    node = nodes["LoadConceptImages"]
    first = node.fingerprint_inputs(folder=["dog"])
    assert node.fingerprint_inputs(folder=["dog"]) == first != node.fingerprint_inputs(folder=["mug"])
    os.utime(photos / "mug" / "0.png", (1, 1))
    changed = node.fingerprint_inputs(folder=["mug"])
    assert node.fingerprint_inputs(folder=["mug"]) == changed
