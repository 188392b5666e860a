"""ConceptMatrix in the real host: what is drawn, kept, drawn again, scored and refused."""

import asyncio
import csv
import errno
import io
import re
import sys
from collections import Counter

import pytest
import torch
from PIL import Image

from devtools.staging import stage_clip

PROMPTS, PLAIN = "a photo of {}\n{} at night", "a red car"
SMALL = {"pictures": 1, "steps": 1, "resolution": 64, "prompts": PROMPTS, "plain_prompts": PLAIN}
# Two concepts, two prompts, one plain one: 2 x 2 + 1 pictures at stage 0, 2 + 1 at stage 1, 4 + 1 at stage 2.
CELLS = 5 + 3 + 5


@pytest.fixture(scope="session")
def judge(host_base):
    return stage_clip(host_base, None)


@pytest.fixture
def matrix(run, random_model, judge):
    def call(memory, **inputs):
        parts = {"model": random_model.model, "clip": random_model.clip, "vae": random_model.vae}
        return run("ConceptMatrix", **{**parts, "memory": memory, "clip_model": judge, **SMALL, **inputs})

    return call


@pytest.fixture
def unmerged(comfy, random_model):
    """The host keeps the last drawn model merged until another is loaded."""

    def load():
        with torch.inference_mode():
            comfy.model_management.load_models_gpu([random_model.model])

    load()
    return load


@pytest.fixture
def put_back(unmerged, untouched):
    yield
    unmerged()


@pytest.fixture
def draws(pack, nodes, monkeypatch):
    """What is asked of the sampler: (prompt, seed) each."""
    module = sys.modules[f"{pack.__name__}.cns_core.host.matrix"]
    real, seen = module.draw, []

    def draw(loaded, prompts, size, seeds, sampling):
        seen.append((*prompts, *seeds))
        return real(loaded, prompts, size, seeds, sampling)

    monkeypatch.setattr(module, "draw", draw)
    return seen


@pytest.fixture
def kept(pack):
    from ComfyUI_CNS.cns_core.host.paths import work_folder

    return lambda: sorted(work_folder("matrix").rglob("*.png"))


def table(text):
    """(measure, concept) -> cells of the stages from 0."""
    rows = list(csv.reader(io.StringIO(text)))
    return {(row[0], row[1]): row[3:] for row in rows[1:]}


def test_every_concept_at_every_stage(matrix, both, dog, mug, draws, host_base, put_back):
    heat, curve, grid, text, found = matrix(both, seed=100, concept=dog, concept_5=mug)
    asked = Counter(prompt for prompt, _ in draws)
    assert len(draws) == CELLS and {seed for _, seed in draws} == {100}
    assert asked["a photo of dog"] == asked["a photo of mug"] == 1
    assert asked["a photo of <my-dog>"] == 2 and asked["<my-mug> at night"] == 1 and asked["a red car"] == 3
    cells = table(found)
    assert [bool(cell) for cell in cells["CLIP-I", "<my-mug>"]] == [True, False, True]
    assert [bool(cell) for cell in cells["CLIP-T", "<my-dog>"]] == [True, True, True]
    assert all(-1 <= float(cell) <= 1 for row in cells.values() for cell in row if cell)
    for picture in (heat, curve, grid):
        assert picture.ndim == 4 and picture.shape[0] == 1 and picture.dtype == torch.float32
    for told in ("final average", "forgetting", "backward transfer", "Zero-shot guard", "13 of 13 pictures"):
        assert told in text
    written = re.search(r"written: (.+\.csv)", text)[1]
    assert written == str(host_base / "output" / "concept_matrix_00001_.csv")
    assert (host_base / "output" / "concept_matrix_00001_.csv").read_text(encoding="utf-8") == found


def test_scores_are_those_of_the_score_node(matrix, run, both, dog, judge, random_model, draws):
    """As of the last stage, drawn and scored by hand."""
    *_, found = matrix(both, seed=101, concept=dog, prompts="a photo of {}", plain_prompts="")
    model, clip = run("ApplyPersonalizedUNet", model=random_model.model, clip=random_model.clip, memory=both)
    from ComfyUI_CNS.cns_core.host.draw import Sampling, draw
    from ComfyUI_CNS.cns_core.host.types import Loaded

    with torch.inference_mode():
        drawn = draw(
            Loaded(model, clip, random_model.vae), ["a photo of <my-dog>"], (64, 64), [101], Sampling(1, 7.0)
        )
    kept_as = drawn.mul(255).round().div(255)
    clip_i, clip_t, _ = run(
        "CLIPScore", image=kept_as, prompt="a photo of <my-dog>", clip_model=judge, concept=dog
    )
    cells = table(found)
    assert float(cells["CLIP-I", "<my-dog>"][2]) == pytest.approx(clip_i, abs=2e-4)
    assert float(cells["CLIP-T", "<my-dog>"][2]) == pytest.approx(clip_t, abs=2e-4)
    assert ("CLIP-I", "<my-mug>") not in cells and ("CLIP-T", "plain prompts") not in cells


def test_the_second_run_draws_nothing_and_another_stage_only_its_own(matrix, both, dog, draws):
    first = matrix(both.stage(1), seed=102, concept=dog)
    assert len(draws) == 2 + 1 + 3
    draws.clear()
    matrix(both, seed=102, concept=dog)
    assert Counter(draws) == Counter(
        (prompt, 102)
        for prompt in (
            *("a photo of mug", "mug at night"),
            *("a photo of <my-dog>", "<my-dog> at night", "a photo of <my-mug>", "<my-mug> at night", PLAIN),
        )
    )
    draws.clear()
    again = matrix(both.stage(1), seed=102, concept=dog)
    assert not draws and again[4] == first[4] and torch.equal(again[2], first[2])
    assert "0 of 6 pictures were drawn now" in again[3]
    for changed in ({"steps": 2}, {"cfg": 2.0}, {"resolution": 128}, {"seed": 103}):
        matrix(both.stage(1), **{"seed": 102, **changed})
        assert len(draws) == 6, changed
        draws.clear()


def test_another_memory_or_model_is_another_picture(matrix, train, dog, dog_neurons, random_model, draws):
    first, second = (train(dog, dog_neurons, seed=seed)[0] for seed in (71, 72))
    matrix(first, seed=104)
    draws.clear()
    matrix(second, seed=104)
    assert len(draws) == 3  # stage 0 is of no memory
    draws.clear()
    skipping = random_model.clip.clone()
    skipping.clip_layer(-2)
    matrix(second, seed=104, clip=skipping)
    assert len(draws) == 6


def test_what_was_cancelled_goes_on(comfy, matrix, both, draws, hook, put_back):
    previews = []

    def cancel(value, total, preview, node_id=None):
        previews.append(preview)
        if value == 4:
            comfy.model_management.interrupt_current_processing()

    hook(cancel)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        matrix(both, seed=105)
    hook(None)
    assert len(draws) == 4 and previews[-1] is not None
    matrix(both, seed=105)
    assert len(draws) == CELLS and len(set(draws[4:])) <= CELLS - 4


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def another_size(path):
    Image.new("RGB", (32, 32)).save(path, format="PNG")


@pytest.mark.parametrize("damage", [cut, empty, another_size])
def test_damaged_pictures_are_set_aside_and_drawn_again(matrix, both, draws, kept, damage):
    seed = 106 + [cut, empty, another_size].index(damage)
    before = set(kept())
    first = matrix(both.stage(1), seed=seed)
    draws.clear()
    path = sorted(set(kept()) - before)[0]
    content = path.read_bytes()
    damage(path)
    again = matrix(both.stage(1), seed=seed)
    assert len(draws) == 1 and again[4] == first[4] and path.read_bytes() == content
    assert f"set aside as {path.name}.damaged" in again[3]


def test_a_full_disk_is_told_once_and_stops_nothing(pack, matrix, both, draws, kept, monkeypatch):
    whole = matrix(both.stage(1), seed=110, plain_prompts="")
    before = kept()
    for path in before:
        path.unlink()
    draws.clear()

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys.modules[f"{pack.__name__}.cns_core.atomic_write"], "_replace", full)
    again = matrix(both.stage(1), seed=110, plain_prompts="")
    assert len(draws) == 4 and not kept() and again[4] == whole[4]
    assert again[3].count("Not kept for the next time") == 1


def test_an_output_folder_that_cannot_be_written_is_told(matrix, both, host_base):
    (host_base / "output" / "blocked").write_text("a file where the folder should be")
    text = matrix(both.stage(1), seed=110, plain_prompts="", filename="blocked/matrix")[3]
    assert "blocked/matrix.csv could not be written into" in text and "final average" in text


def test_a_csv_that_does_not_fit_on_the_disk_leaves_no_part_of_it(pack, host_base, monkeypatch):
    from ComfyUI_CNS.cns_core.host import output_files

    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    def opened(path, *_, **__):
        path.touch()
        return Full()

    monkeypatch.setattr(output_files.Path, "open", opened)
    assert "full/matrix.csv could not be written" in output_files.written("full/matrix", ".csv", "a,b\n")
    assert not list((host_base / "output" / "full").iterdir())


def test_csv_files_are_counted(matrix, both, host_base):
    for _ in range(2):
        matrix(both.stage(1), seed=110, plain_prompts="", filename="sub/counted")
    folder = host_base / "output" / "sub"
    assert sorted(p.name for p in folder.iterdir()) == ["counted_00001_.csv", "counted_00002_.csv"]
    (folder / "counted_00003_.csv").write_text("mine")
    matrix(both.stage(1), seed=110, plain_prompts="", filename="sub/counted")
    assert (folder / "counted_00003_.csv").read_text() == "mine"
    assert (folder / "counted_00004_.csv").exists()


def test_references_from_folders(matrix, nodes, both, dog, photos):
    by_node = matrix(both.stage(1), seed=111, plain_prompts="", concept=dog)
    for line in ("<my-dog>: dog", " My Dog :dog\n"):
        text, found = matrix(both.stage(1), seed=111, plain_prompts="", reference_folders=line)[3:]
        scores = table(found)["CLIP-I", "<my-dog>"]
        assert "No CLIP-I" not in text
        # The same photos, but not cropped for training.
        assert float(scores[1]) == pytest.approx(float(table(by_node[4])["CLIP-I", "<my-dog>"][1]), abs=0.2)
    fingerprint = nodes["ConceptMatrix"].fingerprint_inputs
    before = fingerprint(reference_folders="<my-dog>: dog")
    Image.new("RGB", (64, 64)).save(photos / "dog" / "more.png")
    assert fingerprint(reference_folders="<my-dog>: dog") != before
    (photos / "dog" / "more.png").unlink()


def test_concepts_without_references_are_named(matrix, both, mug):
    text, found = matrix(both, seed=100, concept=mug)[3:]
    assert "No CLIP-I of `<my-dog>`" in text
    assert ("CLIP-I", "<my-dog>") not in table(found) and ("CLIP-T", "<my-dog>") in table(found)


def test_weights_in_prompts_are_drawn_and_not_scored(matrix, both, draws):
    weighted = matrix(both.stage(1), seed=112, prompts="a photo of ({}:1.3)", plain_prompts="")
    assert ("a photo of (<my-dog>:1.3)", 112) in draws
    plain = matrix(both.stage(1), seed=112, prompts="a photo of {}", plain_prompts="")
    assert weighted[4] != plain[4]


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({"prompts": "\n"}, "There are 0 prompts"),
        ({"prompts": "a dog"}, r"'a dog' has no \{\}"),
        ({"prompts": "{} beside <my-mug>"}, "names <my-mug>, which means nothing where it was not learned"),
        ({"plain_prompts": "a {}"}, r"plain prompt 'a \{\}' has \{\}"),
        ({"plain_prompts": "a <My-Dog>"}, "names <my-dog>"),
        ({"prompts": "{} embedding:other"}, "names the embedding other"),
        ({"resolution": 100}, "resolution is 100, expected a multiple of 64. Use 128"),
        ({"reference_folders": "dog"}, "the line 'dog', expected a concept's name or token"),
        ({"reference_folders": "<my-dog>: nowhere"}, "no folder 'nowhere' below ComfyUI's input"),
        ({"reference_folders": "<my-dog>: ../models"}, "lies outside ComfyUI's input directory"),
        ({"reference_folders": "cat: dog"}, "No concept 'cat' in this memory; it holds: my dog, my mug"),
        ({"reference_folders": "<my-dog>: dog\nmy dog: mug"}, "<my-dog> are given twice"),
        ({"clip_model": "checkpoints/none"}, "There is no folder 'checkpoints/none'"),
        ({"filename": "../../elsewhere"}, "no usable file name"),
        ({"filename": ""}, "no usable file name"),
    ],
)
def test_wrong_inputs_are_told_before_anything_is_drawn(matrix, both, photos, draws, inputs, told):
    with pytest.raises(ValueError, match=told):
        matrix(both, seed=113, **inputs)
    assert not draws


def test_parts_that_do_not_fit_are_told_before_anything_is_drawn(run, matrix, both, models, dog, mug, draws):
    import dataclasses

    model, clip = run("ApplyPersonalizedUNet", **models, memory=both)
    other = dataclasses.replace(both, base=dataclasses.replace(both.base, fingerprint="cd" * 32))
    for inputs, told in (
        ({"model": model}, "already carries a concept memory"),
        ({"clip": clip}, "already understands <my-dog>, <my-mug>"),
        ({"memory": other}, "was made on SD1 model cdcdcdcdcdcd"),
        ({"memory": both.stage(0)}, "holds 0 concepts"),
        ({"memory": both.stage(1), "concept": mug}, r"'my mug' \(<my-mug>\) is not in this memory"),
        ({"concept": dog, "concept_2": dog}, "<my-dog> are given twice"),
        ({"concept": dog, "reference_folders": "my dog: dog"}, "<my-dog> are given twice"),
    ):
        with pytest.raises(ValueError, match=told):
            matrix(**{"memory": both, "seed": 113, **inputs})
    assert not draws


def test_a_picture_of_nan_is_never_kept(pack, matrix, both, kept, monkeypatch):
    module = sys.modules[f"{pack.__name__}.cns_core.host.matrix"]
    monkeypatch.setattr(module, "draw", lambda *_: torch.full((1, 64, 64, 3), float("nan")))
    before = kept()
    with pytest.raises(ValueError, match="picture of NaN"):
        matrix(both, seed=114)
    assert kept() == before


def test_what_can_be_known_is_told_when_it_is_queued(nodes, photos):
    validate = nodes["ConceptMatrix"].validate_inputs
    assert validate(prompts="a {}", plain_prompts="", filename="x", reference_folders="a: dog") is True
    assert validate(prompts=None, reference_folders=None) is True
    assert "has no {}" in validate(prompts="a dog")
    assert "below ComfyUI's input" in validate(reference_folders="a: nowhere")
    assert "no usable file name" in validate(filename="a:b")


def test_it_is_registered_with_the_host(pack):
    extension = asyncio.run(pack.comfy_entrypoint())
    assert "ConceptMatrix" in [n.GET_SCHEMA().node_id for n in asyncio.run(extension.get_node_list())]
