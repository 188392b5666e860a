"""Every node in the real ComfyUI, called as the host calls it:
under inference mode, with the schema's defaults.
"""

import dataclasses
import errno
import os
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from bits import bits
from PIL import Image

NODE_IDS = {
    "LoadConceptImages",
    "SelectConceptNeurons",
    "ContinualTrain",
    "ApplyPersonalizedUNet",
    "CLIPScore",
    "SaveConceptMemory",
    "LoadConceptMemory",
}


@pytest.fixture(scope="module")
def photos(pack, host_base):
    """Two small folders of pictures below the input directory."""
    generator = torch.Generator().manual_seed(3)
    for folder in ("dog", "mug"):
        place = host_base / "input" / folder
        place.mkdir(exist_ok=True)
        for i in range(3):
            pixels = torch.randint(0, 255, (80, 64 + 16 * i, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(place / f"{i}.png")
    return host_base / "input"


@pytest.fixture(scope="module")
def dog(run, photos):
    return run("LoadConceptImages", name="my dog", class_word="dog", folder="dog", resolution=64)[0]


@pytest.fixture(scope="module")
def mug(run, photos):
    return run("LoadConceptImages", name="my mug", class_word="mug", folder="mug", resolution=64)[0]


@pytest.fixture(scope="module")
def select(run, models):
    def call(concept, **inputs):
        settings = {"what_may_move": "neurons", "calibration_prompts": 16, **inputs}
        return run("SelectConceptNeurons", **models, concept=concept, **settings)

    return call


@pytest.fixture(scope="module")
def dog_neurons(select, dog):
    return select(dog)[0]


@pytest.fixture(scope="module")
def train(run, models, random_model):
    def call(concept, neurons, **inputs):
        settings = {"steps": 4, "neuron_lr": 1e-3, "batch_size": 2, **inputs}
        return run(
            "ContinualTrain", **models, vae=random_model.vae, concept=concept, neurons=neurons, **settings
        )

    return call


@pytest.fixture(scope="module")
def dog_memory(train, dog, dog_neurons):
    return train(dog, dog_neurons)[0]


@pytest.fixture(scope="module")
def both(train, select, mug, dog_memory):
    neurons = select(mug, memory=dog_memory)[0]
    return train(mug, neurons, memory=dog_memory)[0]


@pytest.fixture
def hook(comfy, monkeypatch):
    """Sets the host's progress hook, which sees every step and preview."""
    import comfy.utils

    for limit in ("PROGRESS_THROTTLE_MIN_INTERVAL", "PROGRESS_THROTTLE_MIN_PERCENT"):
        monkeypatch.setattr(comfy.utils, limit, 0, raising=False)  # newer hosts leave out what comes fast
    before = comfy.utils.PROGRESS_BAR_HOOK
    yield comfy.utils.set_progress_bar_global_hook
    comfy.utils.set_progress_bar_global_hook(before)


PICTURES = 3  # of each concept here; that many are encoded before step 1, which the progress bar shows too


def stop_at(comfy, step):
    def cancel(value, total, preview, node_id=None):
        if value == step and total != PICTURES:
            comfy.model_management.interrupt_current_processing()

    return cancel


# --- registration
# ------------------------------------------------------------------------------------------------


def test_ids_tooltips_defaults_and_ranges(nodes):
    assert set(nodes) == NODE_IDS
    for node in nodes.values():
        schema = node.GET_SCHEMA()
        assert schema.category == "CNS" and schema.display_name and schema.description
        for socket in schema.inputs:
            assert socket.tooltip, (schema.node_id, socket.id)
            if socket.get_io_type() in ("INT", "FLOAT"):
                assert socket.default is not None and socket.min is not None and socket.max is not None
                assert socket.min <= socket.default <= socket.max


def test_rarely_used_inputs_are_marked_advanced(nodes):
    known = nodes["ContinualTrain"].INPUT_TYPES()
    info = known["required"] | known["optional"]
    assert info["keep_earlier"][1]["advanced"] is True and "advanced" not in info["steps"][1]


def test_the_memory_folder_is_registered_and_a_users_own_place_survives(pack, nodes, comfy):
    import folder_paths
    from ComfyUI_CNS.cns_core.host.paths import register_memory_folder

    places, extensions = folder_paths.folder_names_and_paths["concept_memory"]
    assert any(p.endswith("concept_memory") for p in places) and ".safetensors" in extensions
    folder_paths.folder_names_and_paths["concept_memory"] = (["/elsewhere"], set())
    register_memory_folder()
    assert folder_paths.get_folder_paths("concept_memory")[0] == "/elsewhere"
    folder_paths.folder_names_and_paths["concept_memory"] = (places, extensions)


# --- LoadConceptImages
# -------------------------------------------------------------------------------------------


def test_load_from_a_folder(run, photos):
    concept, images, text = run(
        "LoadConceptImages", name="my dog", class_word="dog", folder="dog", resolution=128
    )
    assert concept.token == "<my-dog>" and len(concept.images) == 3
    assert images.shape == (3, 256, 256, 3) and "<my-dog>" in text and "3 training images" in text


def test_load_from_a_batch_with_mask_flip_and_own_text(run):
    concept, images, _ = run(
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
    concept, images, text = run(
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


# --- SelectConceptNeurons
# ----------------------------------------------------------------------------------------


def test_selection_meets_its_budget_and_shows_it(select, dog, untouched):
    neurons, image, text = select(dog, budget_percent=5.0)
    assert 100 * neurons.prepared.mask.share() == pytest.approx(5.0, abs=0.4)
    assert image.ndim == 4 and "of the U-Net" in text


def test_overlap_with_earlier_concepts_is_told(select, mug, dog_memory):
    _, _, text = select(mug, memory=dog_memory)
    assert "shared with `<my-dog>`" in text and "IoU" in text


def test_settings_that_leave_no_neurons(run, models, dog):
    with pytest.raises(ValueError, match="leave no neurons"):
        run(
            "SelectConceptNeurons",
            **models,
            concept=dog,
            select_by="top percent",
            top_percent=100.0,
            what_may_move="neurons",
        )


def test_a_class_word_is_what_the_tokenizer_makes_of_it(run, select, models, photos, tmp_path, monkeypatch):
    from ComfyUI_CNS.cns_core.host.text import inner_tokenizers
    from safetensors.torch import save_file

    for tokenizer in inner_tokenizers(models["clip"]).values():  # as checkpoint loaders give it
        monkeypatch.setattr(tokenizer, "embedding_directory", [str(tmp_path)])
        vectors = torch.zeros(1, tokenizer.embedding_size)
        save_file({"emb_params": vectors}, tmp_path / "known.safetensors")
    for word, fault in (
        ("embedding:known", "names an embedding"),
        ("(dog:1.2)", "has a weight"),
        ("embedding:unknown", "is no word"),
    ):
        concept = run("LoadConceptImages", name="x", class_word=word, folder="dog", resolution=64)[0]
        with pytest.raises(ValueError, match=f"{re.escape(word)}.* {fault}"):
            select(concept)


def test_overlong_captions_are_refused_before_selection(run, select, photos):
    long = "a photo of {} " + "very " * 80
    concept = run(
        "LoadConceptImages", name="x", class_word="dog", folder="dog", caption_source="own text", caption=long
    )[0]
    with pytest.raises(ValueError, match=r"caption of 0\.png: .* 8\d tokens; at most 75 fit"):
        select(concept)


# --- ContinualTrain
# ----------------------------------------------------------------------------------------------


def test_training_moves_only_the_memory(train, dog, dog_neurons, untouched):
    memory, curve, text = train(dog, dog_neurons, seed=11)
    learned = memory.concepts[-1]
    assert learned.method == "cns" and learned.change.mask == dog_neurons.prepared.mask
    assert learned.change.values.abs().max() > 0
    assert {n: len(v) for n, v in learned.losses.items()} == {"diffusion": 4, "prior": 4, "L_reg": 4}
    assert set(learned.token_vectors) == {"clip_l"} and learned.token_vectors["clip_l"].shape == (768,)
    assert curve.shape[-1] == 3 and "<my-dog>" in text


def test_the_same_graph_again_takes_the_result_from_disk(train, dog, dog_neurons, dog_memory):
    memory, _, text = train(dog, dog_neurons)
    assert "taken from disk" in text and memory.digest() == dog_memory.digest()


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


def test_a_disk_that_is_too_full_is_noticed_before_the_first_step(train, dog, dog_neurons, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    with pytest.raises(ValueError, match=r"Training keeps about .* MB in .*runs, but 0\.1 MB are free"):
        train(dog, dog_neurons, seed=25)


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
    with pytest.raises(RuntimeError, match=r"Out of memory.*Lower the concept's resolution or batch_size"):
        train(dog, dog_neurons, seed=23)
    hook(None)
    assert "Resumed after step 3" in train(dog, dog_neurons, seed=23)[2]


def test_a_diverging_run_says_so_and_harms_nothing(run, models, random_model, dog, dog_neurons, untouched):
    class Overflowing:
        """A VAE in half precision may do this to a picture."""

        def __init__(self):
            self.encoded, self.patcher = 0, random_model.vae.patcher

        def encode(self, pixels):
            self.encoded += 1
            latents = random_model.vae.encode(pixels)
            return latents * float("inf") if self.encoded == 3 else latents

    settings = {"steps": 40, "neuron_lr": 1e-3, "concept": dog, "neurons": dog_neurons, "seed": 24}
    with pytest.raises(RuntimeError, match=r"at step \d+ of 40; .*Lower neuron_lr \(now 0\.001\)"):
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


def test_drawn_class_images_are_kept_and_used_again(comfy, train, dog, dog_neurons, hook, untouched):
    from ComfyUI_CNS.cns_core.host.paths import work_folder

    train(dog, dog_neurons, seed=26, steps=1, prior="drawn class images", class_image_count=2)
    files = sorted(work_folder("class_images").rglob("*.png"))
    assert len(files) == 2
    stamps = [f.stat().st_mtime_ns for f in files]
    train(dog, dog_neurons, seed=27, steps=1, prior="drawn class images", class_image_count=3)
    files = sorted(work_folder("class_images").rglob("*.png"))
    assert len(files) == 3 and [f.stat().st_mtime_ns for f in files[:2]] == stamps


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
    with pytest.raises(ValueError, match="without a diffusion model"):
        run("SelectConceptNeurons", model=SimpleNamespace(model=None), clip=models["clip"], concept=dog)
    inpainting = models["model"].clone()
    config = inpainting.model.model_config.unet_config
    config["in_channels"], before = 9, config["in_channels"]
    try:
        with pytest.raises(ValueError, match="inpainting or editing U-Net \\(9 input channels instead of 4"):
            run("SelectConceptNeurons", model=inpainting, clip=models["clip"], concept=dog)
    finally:
        config["in_channels"] = before


def test_a_memory_of_another_base_is_refused_and_both_are_named(run, models, dog_memory):
    import dataclasses

    other = dataclasses.replace(dog_memory, base=dataclasses.replace(dog_memory.base, fingerprint="cd" * 32))
    with pytest.raises(ValueError, match=r"SD1 model cdcdcdcdcdcd, but the loaded model is SD1 model"):
        run("ApplyPersonalizedUNet", **models, memory=other)


# --- ApplyPersonalizedUNet
# ---------------------------------------------------------------------------------------


def loaded_weights(comfy, model, memory):
    comfy.model_management.load_models_gpu([model])
    modules = model.model.diffusion_model
    return {n: modules.get_submodule(n).weight.detach().clone() for n in memory.layout.names}


def test_weights_are_exactly_base_plus_values_and_go_back(comfy, run, models, both, untouched):
    base = loaded_weights(comfy, models["model"], both)
    for strength, stage in ((1.0, both), (0.5, both), (1.0, both.stage(1))):
        model, _ = run("ApplyPersonalizedUNet", **models, memory=stage, strength=strength)
        seen = loaded_weights(comfy, model, both)
        for name, change in stage.changes().items():
            assert torch.equal(seen[name], base[name] + strength * change.to(base[name].dtype)), name
    again = loaded_weights(comfy, models["model"], both)
    assert all(torch.equal(again[n], base[n]) for n in base)


def test_a_matrix_that_is_mostly_moved_is_patched_as_a_whole(comfy, run, models, both, untouched):
    from ComfyUI_CNS.cns_core.methods.cns.change import CnsChange
    from ComfyUI_CNS.cns_core.methods.cns.masks import NeuronMask

    first, *_ = both.layout.names
    masks = {n: torch.full(s, n == first) for n, s, _ in both.layout.slices()}
    mask = NeuronMask.from_dense(both.layout, masks)
    values = torch.randn(mask.count(), generator=torch.Generator().manual_seed(0)).half()
    one = both.concepts[0]
    all_of_it = dataclasses.replace(one, name="all", token="<all>", change=CnsChange(mask, values))
    memory = both.with_learned(all_of_it)
    base = loaded_weights(comfy, models["model"], both)
    model, _ = run("ApplyPersonalizedUNet", **models, memory=memory, strength=0.5)
    sizes = {key: len(patches[0][1].weights) for key, patches in model.patches.items()}
    assert sizes.pop(f"diffusion_model.{first}.weight") == 1 and set(sizes.values()) == {2}
    seen = loaded_weights(comfy, model, both)
    for name, change in memory.changes().items():
        assert torch.equal(seen[name], base[name] + 0.5 * change.to(base[name].dtype)), name
    loaded_weights(comfy, models["model"], both)


def test_as_of_an_earlier_concept(run, models, both, untouched):
    from ComfyUI_CNS.cns_core.host.text import known_tokens

    for as_of in ("1", "my dog", "<my-dog>"):
        _, clip = run("ApplyPersonalizedUNet", **models, memory=both, as_of=as_of)
        assert known_tokens(clip) == ["<my-dog>"]
    with pytest.raises(ValueError, match="No concept 'nobody'"):
        run("ApplyPersonalizedUNet", **models, memory=both, as_of="nobody")


def test_what_was_trained_is_what_is_drawn(
    comfy, run, train, models, random_model, dog, dog_neurons, untouched, float32
):
    """A frozen further run on the memory predicts what drawing with it does: training and patches agree."""
    from ComfyUI_CNS.cns_core.host.backend import HostBackend, training_mode

    memory = train(dog, dog_neurons)[0]
    learned = memory.concepts[0]
    z, t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([400])
    with training_mode():
        backend = HostBackend(models["model"], models["clip"], "<my-dog>", learned.token_vectors, {}, float32)
        again = dog_neurons.method.start(
            dog_neurons.prepared, memory, dog_neurons.method.Training(), backend.device
        )
        with backend.weights_patched(again.weight_functions()), torch.no_grad():
            features = backend.encode(["a photo of <my-dog>"], learned.token_vectors)
            trained = backend.predict(z, t, features)
    model, clip = run("ApplyPersonalizedUNet", **models, memory=memory)
    with torch.inference_mode():
        cond = clip.encode_from_tokens(clip.tokenize("a photo of <my-dog>"))
        comfy.model_management.load_models_gpu([model])
        sigma = model.get_model_object("model_sampling").sigmas[t]
        x = z * (sigma**2 + 1).sqrt()
        drawn = (x - model.model.apply_model(x, sigma, c_crossattn=cond)) / sigma
    torch.testing.assert_close(trained, drawn, atol=2e-4, rtol=1e-3)
    loaded_weights(
        comfy, models["model"], memory
    )  # the host keeps the last drawn model merged until another is loaded


# --- prompts
# -----------------------------------------------------------------------------------------------------


def test_plain_prompts_encode_exactly_as_before(run, models, both, untouched):
    _, clip = run("ApplyPersonalizedUNet", **models, memory=both)
    for prompt in ("", "a photo of a dog", "(blue:1.3) sky, my dog", "a < b > c <other> token", "word " * 90):
        with torch.inference_mode():
            before = models["clip"].encode_from_tokens(models["clip"].tokenize(prompt), return_pooled=True)
            after = clip.encode_from_tokens(clip.tokenize(prompt), return_pooled=True)
        assert all(torch.equal(bits(a), bits(b)) for a, b in zip(before, after, strict=True)), prompt


def entries(clip, prompt):
    return clip.tokenize(prompt)["l"][0]


def test_the_token_is_spliced_in_wherever_it_stands(run, models, both, untouched):
    _, clip = run("ApplyPersonalizedUNet", **models, memory=both)
    dog, mug = (c.token_vectors["clip_l"] for c in both.concepts)

    def vectors(prompt):
        return [(i, w) for i, (e, w) in enumerate(entries(clip, prompt)) if torch.is_tensor(e)], [
            e for e, _ in entries(clip, prompt) if torch.is_tensor(e)
        ]

    for prompt in ("<my-dog>", "a photo of <my-dog>", "A photo of <My-Dog>!", "<my-dog>s", "x,<my-dog>,y"):
        places, found = vectors(prompt)
        assert len(found) == 1 and torch.equal(found[0], dog), prompt
    places, found = vectors("(<my-dog>:1.3) on a <my-mug>")
    assert torch.equal(found[0], dog) and torch.equal(found[1], mug) and places[0][1] == pytest.approx(1.3)
    assert not vectors("my-dog")[1] and len(entries(clip, "<my-dog>")) == 77


def test_the_stock_text_encode_node_reads_the_token(run, models, both, comfy):
    import nodes as stock

    _, clip = run("ApplyPersonalizedUNet", **models, memory=both)
    with torch.inference_mode():
        with_token = stock.CLIPTextEncode().encode(clip, "a photo of <my-dog>")[0][0][0]
        without = stock.CLIPTextEncode().encode(models["clip"], "a photo of <my-dog>")[0][0][0]
    assert with_token.shape == (1, 77, 768) and not torch.equal(with_token, without)


def test_two_memories_in_a_row_compose(run, models, both, dog_memory, comfy, untouched):
    only_mug = both.without("my dog")
    model, clip = run("ApplyPersonalizedUNet", **models, memory=dog_memory)
    model, clip = run("ApplyPersonalizedUNet", model=model, clip=clip, memory=only_mug)
    found = [e for e, _ in entries(clip, "<my-dog> and <my-mug>") if torch.is_tensor(e)]
    assert len(found) == 2
    base = loaded_weights(comfy, models["model"], both)
    seen = loaded_weights(comfy, model, both)
    name = both.layout.names[0]
    assert not torch.equal(seen[name], base[name])
    loaded_weights(comfy, models["model"], both)
    with pytest.raises(ValueError, match=r"already understands <my-mug>"):
        run("ApplyPersonalizedUNet", model=model, clip=clip, memory=only_mug)


# --- memory files
# ------------------------------------------------------------------------------------------------


def test_save_and_load(run, nodes, both):
    (text,) = run("SaveConceptMemory", memory=both, filename="sub/mine")
    assert "mine.safetensors" in text and "<my-mug>" in text
    loaded, summary = run("LoadConceptMemory", file="sub/mine.safetensors")
    assert loaded.digest() == both.digest() and "<my-dog>" in summary
    first = nodes["LoadConceptMemory"].fingerprint_inputs(file="sub/mine.safetensors")
    run("SaveConceptMemory", memory=both.stage(1), filename="sub/mine", overwrite=True)
    assert nodes["LoadConceptMemory"].fingerprint_inputs(file="sub/mine.safetensors") != first


def test_a_file_that_is_gone_is_saved_again(nodes, run, both, host_base):
    save = nodes["SaveConceptMemory"]
    assert save.fingerprint_inputs(filename=None) != save.fingerprint_inputs(filename=None)  # wired
    assert save.fingerprint_inputs(filename="gone") != save.fingerprint_inputs(filename="gone")
    run("SaveConceptMemory", memory=both, filename="gone")
    stands = save.fingerprint_inputs(filename="gone")
    assert save.fingerprint_inputs(filename="gone") == stands
    run("SaveConceptMemory", memory=both.stage(1), filename="gone", overwrite=True)
    assert save.fingerprint_inputs(filename="gone") != stands
    (host_base / "models" / "concept_memory" / "gone.safetensors").unlink()
    assert save.fingerprint_inputs(filename="gone") != stands


def test_bad_file_names_are_refused_when_queued(nodes):
    said = nodes["SaveConceptMemory"].validate_inputs(filename="a:b")
    assert isinstance(said, str) and "'a:b' has ':'" in said
    assert nodes["SaveConceptMemory"].validate_inputs(filename="%year% my dog's") is True
    assert nodes["SaveConceptMemory"].validate_inputs(filename=None) is True  # from another node


def test_saving_never_loses_a_concept_unasked(run, both, dog_memory):
    run("SaveConceptMemory", memory=dog_memory, filename="growing")
    run("SaveConceptMemory", memory=both, filename="growing")  # the same and one more
    for less in (dog_memory, both.without("my dog")):
        with pytest.raises(
            ValueError,
            match=r"growing.safetensors already holds other concepts \(my dog, "
            r"my mug",
        ):
            run("SaveConceptMemory", memory=less, filename="growing")
    assert run("LoadConceptMemory", file="growing.safetensors")[0].digest() == both.digest()
    run("SaveConceptMemory", memory=dog_memory, filename="growing", overwrite=True)
    assert run("LoadConceptMemory", file="growing.safetensors")[0].digest() == dog_memory.digest()


def test_a_concept_trained_anew_replaces_its_former_self_when_it_may(
    run, train, dog, dog_neurons, dog_memory
):
    run("SaveConceptMemory", memory=dog_memory, filename="again")
    anew = train(dog, dog_neurons, seed=31, steps=1)[0]
    with pytest.raises(ValueError, match="my dog would be another one of the same name"):
        run("SaveConceptMemory", memory=anew, filename="again")
    assert run("LoadConceptMemory", file="again.safetensors")[0].digest() == dog_memory.digest()
    run("SaveConceptMemory", memory=anew, filename="again", overwrite=True)
    assert run("LoadConceptMemory", file="again.safetensors")[0].digest() == anew.digest()


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "", "con\x00trol", "a//b"])
def test_file_names_cannot_leave_the_folder(run, both, name):
    with pytest.raises(ValueError, match=r"no usable file name|outside"):
        run("SaveConceptMemory", memory=both, filename=name)


def test_unknown_memory_files(nodes, run):
    for name in ("nothing.safetensors", "../checkpoints/x.safetensors"):
        assert isinstance(nodes["LoadConceptMemory"].validate_inputs(file=name), str)
        with pytest.raises(ValueError):
            run("LoadConceptMemory", file=name)
