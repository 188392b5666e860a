"""CaptionConceptImages: caption files by tiny random models, and what becomes of those that are there."""

from __future__ import annotations

import asyncio
import json
import os
import shutil

import pytest
import torch
from image_to_text import WORDS, WRITERS, write_blip
from PIL import Image


@pytest.fixture(scope="module")
def blip(host_base):
    """Its name below models/."""
    write_blip(host_base / "models" / "captioners" / "blip")
    return "captioners/blip"


@pytest.fixture
def place(photos, host_base):
    """A folder of three pictures, one of them with a mask."""
    folder = host_base / "input" / "captioning"
    folder.mkdir()
    for number, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (40, 50), colour).save(folder / f"{number}.png")
    Image.new("L", (40, 50), 255).save(folder / "0-mask.png")
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def write(run, place, blip):
    def call(**inputs):
        return run(
            "CaptionConceptImages", **{"folder": place.name, "class_word": "dog", "model": blip, **inputs}
        )

    return call


def captions(folder):
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))}


@pytest.mark.parametrize("kind", WRITERS)
def test_each_kind_of_model_writes_a_caption_beside_each_picture(write, host_base, place, kind):
    WRITERS[kind](host_base / "models" / "captioners" / kind)
    text, folder = write(model=f"captioners/{kind}", max_words=8)
    written = captions(place)
    assert list(written) == ["0.txt", "1.txt", "2.txt"] and folder == place.name  # and none of the mask
    for name, content in written.items():
        caption = content.removesuffix("\n")
        assert caption.count("{}") == 1 and "\n" not in caption and f"- {name}: `{caption}`" in text
        said = caption.replace("{},", "").replace("{}", "dog").split()
        assert 1 <= len(said) <= 8 and set(said) <= set(WORDS)
    assert "3 captions written, 0 kept, 0 left out" in text and "fetched" not in text


def test_what_is_written_is_trained_on(write, run, place):
    write(prefix="a photo of")
    concept = run(
        "LoadConceptImages",
        name="my dog",
        class_word="dog",
        folder=place.name,
        caption_source="txt files",
        resolution=64,
    )[0]
    expected = [caption.strip().replace("{}", "<my-dog>") for caption in captions(place).values()]
    assert [image.captions for image in concept.images] == [(caption,) for caption in expected]
    assert all(caption.startswith("a photo of ") for caption in expected)


def test_an_instruction_is_what_blip_goes_on_from(write, place):
    write(instruction="a brown dog")
    assert all(caption.startswith("a brown {}") for caption in captions(place).values())


def test_what_a_model_is_asked_is_no_part_of_what_it_says(write, host_base, place):
    """GIT and LLaVA repeat the question before they answer."""
    for kind in ("git", "llava"):
        WRITERS[kind](host_base / "models" / "captioners" / kind)
        answers = []
        for question in ("", "the red mug", "the brown cat"):
            write(model=f"captioners/{kind}", instruction=question, overwrite=True, max_words=8)
            answers.append(captions(place)["0.txt"])
            assert not question or question not in answers[-1]
        assert len(set(answers)) > 1  # it was asked


def test_an_instruction_that_nothing_can_take_is_refused(write, host_base, place):
    WRITERS["vision-encoder-decoder"](host_base / "models" / "captioners" / "vision-encoder-decoder")
    with pytest.raises(ValueError, match="takes pictures alone, and an instruction was given"):
        write(model="captioners/vision-encoder-decoder", instruction="a brown dog")


def test_captions_that_are_there_are_kept_unless_told_otherwise(write, place):
    (place / "0.txt").write_text("my own words", encoding="utf-8")
    (place / "1.caption").write_text("another trainer's", encoding="utf-8")
    (place / "2.txt").write_text(" \n", encoding="utf-8")
    text = write()[0]
    assert captions(place)["0.txt"] == "my own words" and "1.txt" not in captions(place)
    assert "{}" in captions(place)["2.txt"] and "1 captions written, 2 kept" in text
    assert "0.txt: `my own words`" in text and "1.caption: `another trainer's`" in text
    text = write(overwrite=True)[0]
    assert all("{}" in caption for caption in captions(place).values()) and len(captions(place)) == 3
    assert "3 captions written, 0 kept" in text


def test_a_model_is_loaded_only_when_there_is_something_to_write(write, place):
    for number in range(3):
        (place / f"{number}.txt").write_text("mine", encoding="utf-8")
    assert "3 kept" in write(model="captioners/none-such")[0]
    with pytest.raises(ValueError, match="There is no folder 'captioners/none-such' below"):
        write(model="captioners/none-such", overwrite=True)


def test_the_same_captions_are_not_written_again(nodes, write, place):
    node = nodes["CaptionConceptImages"]
    before = node.fingerprint_inputs(folder=place.name)
    write(overwrite=True)
    after = node.fingerprint_inputs(folder=place.name)
    write(overwrite=True)
    assert before != after == node.fingerprint_inputs(folder=place.name)
    os.utime(place / "0.txt", (1, 1))
    changed = node.fingerprint_inputs(folder=place.name)
    os.utime(place / "1.png", (1, 1))
    assert len({after, changed, node.fingerprint_inputs(folder=place.name)}) == 3


def test_a_picture_that_cannot_be_read_is_named_and_the_others_go_on(write, place):
    (place / "1.png").write_bytes(b"hello")
    text = write()[0]
    assert list(captions(place)) == ["0.txt", "2.txt"]
    assert "2 captions written, 0 kept, 1 left out" in text and "1.png cannot be read" in text
    for number in (0, 2):
        (place / f"{number}.png").write_bytes(b"hello")
        (place / f"{number}.txt").unlink()
    with pytest.raises(ValueError, match=r"No picture of .* could be captioned:\n.*0\.png cannot be read"):
        write()


def test_pictures_of_one_name_have_captions_of_their_own(write, run, place):
    Image.new("RGB", (40, 50), "white").save(place / "0.jpg")
    text = write()[0]
    assert list(captions(place)) == ["0.jpg.txt", "0.png.txt", "1.txt", "2.txt"] and "4 captions" in text
    (place / "0.txt").write_text("both", encoding="utf-8")
    with pytest.raises(ValueError, match=r"0\.txt is the caption of several pictures \(0\.jpg, 0\.png\)"):
        write(overwrite=True)
    (place / "0.txt").write_text("", encoding="utf-8")
    (place / "0.jpg.txt").unlink()
    with pytest.raises(ValueError, match="would be read in place of new ones"):
        write()


def test_a_link_to_elsewhere_is_replaced_and_its_target_left_alone(write, place, tmp_path):
    target = tmp_path / "target.txt"
    target.write_text("not mine", encoding="utf-8")
    (place / "0.txt").symlink_to(target)
    assert "0.txt, which cannot be used" in write()[0]
    assert (place / "0.txt").is_symlink()
    write(overwrite=True)
    assert target.read_text(encoding="utf-8") == "not mine" and not (place / "0.txt").is_symlink()
    assert "{}" in captions(place)["0.txt"]


def test_cancel_keeps_what_is_written_and_frees_the_model(comfy, write, place, hook):
    seen = []

    def watch(value, total, preview, node_id=None):
        seen.append((value, total))
        if value == 2:
            comfy.model_management.interrupt_current_processing()

    hook(watch)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        write()
    assert seen == [(0, 3), (1, 3), (2, 3)] and list(captions(place)) == ["0.txt", "1.txt"]
    hook(lambda *_, **__: None)
    assert "1 captions written, 2 kept" in write()[0]


def test_cancel_is_heard_within_a_picture(comfy, write, place, monkeypatch):
    from ComfyUI_CNS.cns_core.host import caption_folder

    asked = []

    def cancel():
        asked.append(None)
        if len(asked) == 2:
            raise comfy.model_management.InterruptProcessingException

    monkeypatch.setattr(caption_folder, "stop_if_cancelled", cancel)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        write()
    assert captions(place) == {}


def test_the_model_is_let_go_whatever_happens(write, place, monkeypatch):
    from ComfyUI_CNS.cns_core.captioner import Captioner

    closed = []
    close = Captioner.close
    monkeypatch.setattr(Captioner, "close", lambda self: (close(self), closed.append(self.model)))
    write()

    def fail(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Captioner, "sentence", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        write(overwrite=True)
    assert closed == [None, None]


def test_a_folder_that_cannot_be_written_is_told_before_a_model_is_looked_for(write, place, monkeypatch):
    from ComfyUI_CNS.cns_core.host import paths

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(paths.tempfile, "TemporaryFile", refuse)
    with pytest.raises(ValueError, match=r"0\.txt cannot be saved in .*captioning: Permission denied"):
        write(model="captioners/none-such")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"folder": "(none)"}, "No folder is chosen"),
        ({"folder": "nowhere"}, "no folder 'nowhere'"),
        ({"folder": "../models"}, "outside ComfyUI's input directory"),
        ({"class_word": "<dog>"}, "Class word"),
        ({"prefix": "a\nb"}, "control character"),
        ({"model": ""}, "No caption model is named"),
        ({"model": "../input"}, "outside the models folder"),
        ({"model": "blip"}, "No caption model folder at 'blip'"),
        ({"max_words": 0}, "max_words is 0; expected"),
    ],
)
def test_what_cannot_be_is_told(write, inputs, message):
    with pytest.raises(ValueError, match=message):
        write(**inputs)


def test_a_model_that_says_nothing_is_told(write, place, monkeypatch):
    from ComfyUI_CNS.cns_core.captioner import Captioner

    monkeypatch.setattr(Captioner, "sentence", lambda *_: "...")
    with pytest.raises(ValueError, match=r"0\.png: the model said '\.\.\.', expected words"):
        write()
    assert captions(place) == {}


def test_a_bad_folder_fails_when_queued(nodes, place):
    check = nodes["CaptionConceptImages"].validate_inputs
    assert check(folder=place.name) is True and check(folder=None) is True
    assert "No folder is chosen" in check(folder="(none)") and "no folder" in check(folder="nowhere")


def test_the_folder_goes_on_to_load_concept_images(comfy, nodes, place, blip, monkeypatch):
    """So that a graph captions first, then loads; the link is what the host accepts."""
    import execution

    import nodes as host_nodes

    names = ("CaptionConceptImages", "LoadConceptImages")
    for name in names:
        monkeypatch.setitem(host_nodes.NODE_CLASS_MAPPINGS, name, nodes[name])
    given = [
        {i.id: i.default for i in nodes[name].GET_SCHEMA().inputs if getattr(i, "default", None) is not None}
        for name in names
    ]
    given[0] |= {"folder": place.name, "model": blip}
    given[1] |= {"folder": ["1", 1], "caption_source": "txt files", "resolution": 64}
    graph = {
        "1": {"class_type": names[0], "inputs": given[0]},
        "2": {"class_type": names[1], "inputs": given[1]},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 3]}},
    }
    monkeypatch.setitem(host_nodes.NODE_CLASS_MAPPINGS, "PreviewImage", host_nodes.PreviewImage)
    valid, error, outputs, faults = asyncio.run(execution.validate_prompt("1", graph, None))
    assert valid and not error and not faults and sorted(outputs) == ["1", "3"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "holds no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "is damaged"),
        (lambda f: (f / "config.json").write_text('{"model_type": "clip"}'), "Could not load"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "are pickles"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "Could not load"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "an adapter to another model"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "Could not load"),
    ],
)
def test_a_folder_that_is_no_such_model_is_refused(write, host_base, blip, place, change, message):
    broken = host_base / "models" / "captioners" / "broken"
    shutil.copytree(host_base / "models" / blip, broken)
    try:
        change(broken)
        with pytest.raises(ValueError, match=message):
            write(model="captioners/broken")
    finally:
        shutil.rmtree(broken)
    assert captions(place) == {}


def test_a_model_that_brings_its_own_code_is_refused_and_none_of_it_runs(write, host_base, blip, tmp_path):
    brought = host_base / "models" / "captioners" / "brought"
    shutil.copytree(host_base / "models" / blip, brought)
    ran = tmp_path / "ran"
    config = json.loads((brought / "config.json").read_text())
    config |= {
        "model_type": "unheard-of",
        "auto_map": {"AutoConfig": "code.C", "AutoModelForImageTextToText": "code.M"},
    }
    (brought / "config.json").write_text(json.dumps(config))
    (brought / "code.py").write_text(f"open({str(ran)!r}, 'w')\n")
    with pytest.raises(ValueError, match="Could not load"):
        write(model="captioners/brought")
    assert not ran.exists()


def test_weights_that_are_missing_are_not_made_up(write, host_base, blip):
    from safetensors.torch import load_file, save_file

    short = host_base / "models" / "captioners" / "short"
    shutil.copytree(host_base / "models" / blip, short, dirs_exist_ok=True)
    tensors = load_file(short / "model.safetensors")
    del tensors["vision_model.embeddings.patch_embedding.weight"]
    save_file(tensors, short / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights, such as 'vision_model"):
        write(model="captioners/short")


def test_what_is_fetched_is_told(write, host_base, blip, place, monkeypatch):
    from ComfyUI_CNS.cns_core.captioner import Captioner

    load, asked = Captioner.load, []

    def fetch(source, device, cache_dir, make_room):
        asked.append((source, cache_dir))
        return load(str(host_base / "models" / blip), device, cache_dir, make_room)

    monkeypatch.setattr(Captioner, "load", fetch)
    text = write(model="somebody/some-blip")[0]
    cache = str(host_base / "models" / "caption_models")
    assert asked == [("somebody/some-blip", cache)]
    assert f"the caption model somebody/some-blip was fetched from Hugging Face into {cache}" in text


def test_a_caption_is_the_same_whatever_was_drawn_before(write, place):
    write()
    first = captions(place)
    torch.rand(7)
    for path in place.glob("*.txt"):
        path.unlink()
    write()
    assert captions(place) == first
