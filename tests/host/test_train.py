"""ContinualTrain: what moves, stopping and going on, what is kept, and what is refused."""

import errno
import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from stopping import PICTURES, stop_at


def test_training_moves_only_the_memory(train, dog, dog_neurons, untouched):
    memory, curve, text = train(dog, dog_neurons, seed=11)
    learned = memory.concepts[-1]
    assert learned.method == "cns" and learned.change.mask == dog_neurons.prepared.mask
    assert learned.change.values.abs().max() > 0
    assert {n: len(v) for n, v in learned.losses.items()} == {"diffusion": 4, "prior": 4, "L_reg": 4}
    assert set(learned.token_vectors) == {"clip_l"} and learned.token_vectors["clip_l"].shape == (1, 768)
    assert curve.shape[-1] == 3 and "<my-dog>" in text


def test_the_same_graph_again_takes_the_result_from_disk(train, dog, dog_neurons):
    first = train(dog, dog_neurons, seed=20)[0]
    memory, _, text = train(dog, dog_neurons, seed=20)
    assert "taken from disk" in text and memory.digest() == first.digest()


def test_cancel_within_one_step_then_resume_bit_for_bit(comfy, train, dog, dog_neurons, hook, untouched):
    whole = train(dog, dog_neurons, seed=21, steps=5)[0]
    from ComfyUI_CNS.cns_core.host.paths import work_folder

    results = [p for p in work_folder("runs").glob("*.safetensors")]
    newest = max(results, key=lambda p: p.stat().st_mtime_ns)
    newest.unlink()  # as if it had never run
    steps = []

    def watch(value, total, preview, node_id=None):
        steps.append((value, total))
        stop_at(comfy, 2)(value, total, preview)

    hook(watch)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train(dog, dog_neurons, seed=21, steps=5)
    assert steps == [(1, PICTURES), (2, PICTURES), (3, PICTURES), (1, 5), (2, 5)]
    hook(None)
    resumed, _, text = train(dog, dog_neurons, seed=21, steps=5)
    assert "Resumed after step 2 of 5" in text
    assert resumed.digest() == whole.digest()
    losses = resumed.concepts[0].losses
    assert all(torch.equal(losses[n], v) for n, v in whole.concepts[0].losses.items())


def test_a_failure_in_the_middle_leaves_everything_as_it_was(comfy, train, dog, dog_neurons, hook, untouched):
    def fail(value, total, preview, node_id=None):
        if value == 2 and total != PICTURES:
            raise OSError("the screen caught fire")

    hook(fail)
    with pytest.raises(OSError, match="caught fire"):
        train(dog, dog_neurons, seed=22)
    hook(None)
    assert "Resumed after step 2" in train(dog, dog_neurons, seed=22)[2]


def test_what_cannot_end_well_is_noticed_before_pictures_are_encoded_and_drawn(
    train, dog, dog_neurons, monkeypatch
):
    from ComfyUI_CNS.cns_core.host import learn

    def begun(*_):
        raise AssertionError("long work has begun")

    monkeypatch.setattr(learn, "training_data", begun)
    with pytest.raises(ValueError, match="Every learning rate is 0"):
        train(dog, dog_neurons, seed=25, neuron_lr=0, token_lr=0, prior="drawn class images")
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    with pytest.raises(ValueError, match=r"Training keeps about .* MB in .*runs, but 0\.1 MB are free"):
        train(dog, dog_neurons, seed=25, prior="drawn class images")


def test_a_disk_that_is_full_at_the_end_loses_nothing(run, train, dog, dog_neurons, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    whole = train(dog, dog_neurons, seed=26)[0]
    monkeypatch.setattr(os, "fsync", full)
    learned, _, text = train(dog, dog_neurons, seed=27)
    monkeypatch.undo()
    assert "No space left" in text and "Save it with Save Concept Memory" in text
    run("SaveConceptMemory", memory=learned, filename="rescued")
    rescued = run("LoadConceptMemory", file="rescued.safetensors")[0]
    assert rescued.digest() == learned.digest() != whole.digest()


def test_out_of_memory_says_what_to_lower_and_keeps_the_steps(train, dog, dog_neurons, hook, untouched):
    def fail(value, total, preview, node_id=None):
        if value == 3 and total != PICTURES:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hook(fail)
    with pytest.raises(RuntimeError, match=r"Out of memory.*concept's resolution or the batch size"):
        train(dog, dog_neurons, seed=23)
    hook(None)
    assert "Resumed after step 3" in train(dog, dog_neurons, seed=23)[2]


def test_a_diverging_run_says_so_and_harms_nothing(run, models, random_model, dog, dog_neurons, untouched):
    class Overflowing:
        """A VAE that makes numbers of a picture whose squares are none."""

        def __init__(self):
            self.encoded, self.patcher = 0, random_model.vae.patcher
            self.decode = random_model.vae.decode

        def encode(self, pixels):
            self.encoded += 1
            latents = random_model.vae.encode(pixels)
            return latents * 1e30 if self.encoded == 3 else latents

    settings = {"steps": 40, "neuron_lr": 1e-3, "concept": dog, "neurons": dog_neurons, "seed": 24}
    with pytest.raises(
        RuntimeError, match=r"at step \d+ of 40; .*Lower the neuron learning rate \(now 0\.001\)"
    ):
        run("ContinualTrain", **models, vae=Overflowing(), **settings)


def test_previews_reach_the_progress_bar(train, dog, dog_neurons, hook, untouched):
    pictures = {}

    def watch(value, total, preview, node_id=None):
        if preview is not None:
            pictures[value] = preview

    hook(watch)
    plain = train(dog, dog_neurons, seed=25, preview_prompt="a photo of <my-dog>", preview_every=2)[0]
    assert sorted(pictures) == [2, 4]
    kind, picture, _ = pictures[4]
    assert kind == "JPEG" and picture.size == (64, 64)
    # looking does not change what is learned
    hook(None)
    from ComfyUI_CNS.cns_core.host.paths import work_folder

    max(work_folder("runs").glob("*.safetensors"), key=lambda p: p.stat().st_mtime_ns).unlink()
    assert train(dog, dog_neurons, seed=25)[0].digest() == plain.digest()


def test_a_preview_prompt_is_checked_before_step_1(train, dog, dog_neurons, hook, untouched):
    hook(lambda *values, **more: pytest.fail(f"work was done: {values}"))
    with pytest.raises(ValueError, match=r"preview prompt 'a <my-panda>' names <my-panda>.*then: <my-dog>"):
        train(dog, dog_neurons, seed=227, preview_prompt="a <my-panda>", preview_every=2)


def test_a_place_in_the_preview_prompt_is_the_token(train, dog, dog_neurons, monkeypatch, untouched):
    from ComfyUI_CNS.cns_core.host import learn

    drawn = []
    monkeypatch.setattr(learn, "draw", lambda loaded, prompts, size, *_: drawn.append(prompts))
    train(dog, dog_neurons, seed=226, preview_prompt="a photo of {}, {}", preview_every=4)
    assert drawn == [["a photo of <my-dog>, <my-dog>"]]


def test_drawn_class_images_are_kept_and_used_again(comfy, train, dog, dog_neurons, hook, untouched):
    from ComfyUI_CNS.cns_core.host.paths import work_folder

    shutil.rmtree(work_folder("class_images"), ignore_errors=True)  # other tests' are there too
    train(dog, dog_neurons, seed=26, steps=1, prior="drawn class images", class_image_count=2)
    files = sorted(work_folder("class_images").rglob("*.png"))
    assert len(files) == 2
    stamps = [f.stat().st_ino for f in files]  # a file that is written again is another one
    train(dog, dog_neurons, seed=27, steps=1, prior="drawn class images", class_image_count=3)
    files = sorted(work_folder("class_images").rglob("*.png"))
    assert len(files) == 3 and [f.stat().st_ino for f in files[:2]] == stamps


def test_replay_draws_the_class_and_each_earlier_concept_as_the_memory_has_them(
    train, select, mug, dog_memory, monkeypatch, untouched
):
    from ComfyUI_CNS.cns_core.host import drawn_pictures

    drawn, draw = [], drawn_pictures.draw

    def watched(loaded, prompts, *rest):
        drawn.append((prompts[0], bool(loaded.model.patches)))
        return draw(loaded, prompts, *rest)

    monkeypatch.setattr(drawn_pictures, "draw", watched)
    neurons = select(mug, memory=dog_memory)[0]
    settings = {"seed": 126, "steps": 2, "prior": "replay", "class_image_count": 4}
    memory = train(mug, neurons, memory=dog_memory, **settings)[0]
    asked, patched = zip(*drawn, strict=True)
    assert [("<my-dog>" in prompt, "mug" in prompt) for prompt in asked] == [(False, True), (True, False)] * 2
    assert all(patched), "they are drawn with the memory"
    first, second = memory.concepts[-1].losses["prior"].tolist()
    assert first == pytest.approx(0, abs=1e-9), "nothing has moved yet"
    assert second > 0


def test_given_class_images(train, dog, dog_neurons, untouched):
    pictures = torch.rand(2, 100, 70, 3)
    memory = train(dog, dog_neurons, seed=28, steps=1, prior="given class images", class_images=pictures)[0]
    assert memory.concepts[-1].losses["prior"][0] > 0
    with pytest.raises(ValueError, match="none are connected"):
        train(dog, dog_neurons, prior="given class images")
    with pytest.raises(ValueError, match="Class images are connected, but"):
        train(dog, dog_neurons, class_images=pictures, prior="image-free")


def test_names_and_tokens_that_are_taken(run, select, train, dog, dog_neurons, dog_memory, photos):
    with pytest.raises(ValueError, match="named 'my dog' has been learned already"):
        train(dog, dog_neurons, memory=dog_memory)
    again = run(
        "LoadConceptImages", name="other", token="<my-dog>", class_word="dog", folder="dog", resolution=64
    )[0]
    with pytest.raises(ValueError, match=r"<my-dog> already belongs to the concept 'my dog'"):
        select(again, memory=dog_memory)


def test_neurons_of_another_concept(train, mug, dog_neurons):
    with pytest.raises(ValueError, match="selected for another concept"):
        train(mug, dog_neurons)


def test_personalized_models_are_refused_for_training(run, random_model, models, dog, mug, dog_neurons, both):
    model, clip = run("ApplyPersonalizedUNet", **models, memory=both)
    with pytest.raises(ValueError, match="already carries a concept memory"):
        run("SelectConceptNeurons", model=model, clip=models["clip"], concept=dog)
    with pytest.raises(ValueError, match=r"already understands <my-dog>"):
        run("SelectConceptNeurons", model=models["model"], clip=clip, concept=dog)


def test_other_kinds_of_models(run, models, dog, comfy):
    with pytest.raises(ValueError, match="expected MODEL, from a checkpoint loader"):
        run("SelectConceptNeurons", model=SimpleNamespace(model=None), clip=models["clip"], concept=dog)
    hollow = models["model"].clone()
    hollow.model = None
    with pytest.raises(ValueError, match="without a diffusion model"):
        run("SelectConceptNeurons", model=hollow, clip=models["clip"], concept=dog)
    inpainting = models["model"].clone()
    config = inpainting.model.model_config.unet_config
    config["in_channels"], before = 9, config["in_channels"]
    try:
        with pytest.raises(ValueError, match="inpainting or editing U-Net \\(9 input channels instead of 4"):
            run("SelectConceptNeurons", model=inpainting, clip=models["clip"], concept=dog)
    finally:
        config["in_channels"] = before
