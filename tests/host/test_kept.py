"""What lies in `user/cns`: damaged, foreign, not writable or too much of it, it never stands in the way, and
nothing that was learned is lost.
"""

import errno
import json
import os
import time
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load, save
from stopping import stop_at


@pytest.fixture
def work(pack):
    from ComfyUI_CNS.cns_core.host.paths import work_folder

    return work_folder


@pytest.fixture
def often(pack, monkeypatch):
    """A checkpoint at every second step."""
    from ComfyUI_CNS.cns_core.host import learn

    monkeypatch.setattr(learn, "_CHECKPOINT_EVERY", 2)


def newest(folder, pattern="*.safetensors"):
    return max(folder.rglob(pattern), key=lambda p: p.stat().st_mtime_ns)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def rewritten(path, change):
    """Never through a memory map of what is being written."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    path.write_bytes(save(change(load(content)), header.get("__metadata__")))


def with_nan(path):
    def spoil(tensors):
        return {n: t * float("nan") if t.is_floating_point() else t for n, t in tensors.items()}

    rewritten(path, spoil)


def without_tensors(path):
    rewritten(path, lambda tensors: {"something": torch.zeros(1)})


def no_file_at_all(path):
    path.write_bytes(b"")


DAMAGES = pytest.mark.parametrize("damage", [cut, with_nan, without_tensors, no_file_at_all])


@DAMAGES
def test_a_damaged_result_is_set_aside_and_the_work_done_again(train, dog, dog_neurons, work, damage):
    whole = train(dog, dog_neurons, seed=40)[0]
    path = newest(work("runs"))
    damage(path)
    again, _, text = train(dog, dog_neurons, seed=40)
    assert again.digest() == whole.digest()
    assert f"set aside as {path.name}.damaged in {path.parent}" in text and "taken from disk" not in text
    assert path.with_name(path.name + ".damaged").exists()
    assert "taken from disk" in train(dog, dog_neurons, seed=40)[2]


def test_another_runs_result_under_this_ones_name_is_no_result(train, dog, dog_neurons, work):
    train(dog, dog_neurons, seed=41)
    other = newest(work("runs")).read_bytes()
    whole = train(dog, dog_neurons, seed=42)[0]
    newest(work("runs")).write_bytes(other)
    again, _, text = train(dog, dog_neurons, seed=42)
    assert again.digest() == whole.digest() and "is another file" in text


def test_a_memory_that_somebody_has_put_there_is_no_result(train, dog, dog_neurons, both, work, pack):
    from ComfyUI_CNS.cns_core.memory_file import save_memory

    whole = train(dog, dog_neurons, seed=43)[0]
    path = newest(work("runs"))
    for memory, why in ((both, "holds 2 concepts"), (both.without("my dog"), "holds my mug, <my-mug>")):
        save_memory(path, memory, {"cns_run": path.stem})
        again, _, text = train(dog, dog_neurons, seed=43)
        assert again.digest() == whole.digest() and why in text


@DAMAGES
def test_a_damaged_checkpoint_is_set_aside_and_the_work_done_again(
    comfy, train, dog, dog_neurons, hook, work, damage
):
    whole = train(dog, dog_neurons, seed=44)[0]
    newest(work("runs")).unlink()
    hook(stop_at(comfy, 2))
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train(dog, dog_neurons, seed=44)
    hook(None)
    path = newest(work("runs"), "*.checkpoint.safetensors")
    damage(path)
    again, _, text = train(dog, dog_neurons, seed=44)
    assert again.digest() == whole.digest()
    assert f"set aside as {path.name}.damaged" in text and "Resumed" not in text


def test_a_checkpoint_that_fits_no_longer_is_set_aside(comfy, train, dog, dog_neurons, hook, work, pack):
    from ComfyUI_CNS.cns_core.checkpoint import load_state, save_state

    hook(stop_at(comfy, 2))
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train(dog, dog_neurons, seed=45)
    hook(None)
    path = newest(work("runs"), "*.checkpoint.safetensors")
    key = path.name.removesuffix(".checkpoint.safetensors")
    state = load_state(path, key)
    state.adaptation["values"] = state.adaptation["values"][:-1]
    save_state(path, state, key)
    _, _, text = train(dog, dog_neurons, seed=45)
    assert "belongs to another run" in text and "Resumed" not in text


def test_a_damaged_class_image_is_drawn_again(train, dog, dog_neurons, work):
    def learn(seed):
        return train(dog, dog_neurons, seed=seed, steps=1, prior="drawn class images", class_image_count=2)

    learn(46)
    paths = sorted(work("class_images").rglob("*.png"))[:2]
    whole = [path.read_bytes() for path in paths]
    paths[0].write_bytes(whole[0][:50])
    paths[1].write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n")
    text = learn(47)[2]
    assert all(path.read_bytes() == content for path, content in zip(paths, whole, strict=True))
    assert all(f"{path.name} could not be used" in text for path in paths)


def test_a_damaged_moment_is_made_again(run, models, mug, work):
    def select():
        return run(
            "SelectConceptNeurons", **models, concept=mug, what_may_move="directions", general_prompts=24
        )

    whole = select()[0]
    for damage in (cut, with_nan, without_tensors):
        path = newest(work("moments"))
        before = load(path.read_bytes())["moment"]
        damage(path)
        again, _, text = select()
        assert torch.allclose(load(path.read_bytes())["moment"], before)
        assert f"{path.name} could not be used" in text and again.made_from == whole.made_from
        assert torch.equal(again.prepared.protected.general, whole.prepared.protected.general)
    assert "could not be used" not in select()[2]


def test_of_a_memory_only_the_new_concept_is_kept(train, select, mug, dog_memory, both, work, pack):
    from ComfyUI_CNS.cns_core.memory_file import load_memory

    again, _, text = train(mug, select(mug, memory=dog_memory)[0], memory=dog_memory)
    assert "taken from disk" in text and again.digest() == both.digest()
    assert load_memory(newest(work("runs"))).names() == ["my mug"]


# Where something is written, and what must come of it all the same.


def full(monkeypatch, folder):
    def no_space(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)


def read_only(monkeypatch, folder):
    """Whoever runs the tests may be allowed to write anywhere, but nobody into a folder that is none."""
    aside = folder.with_name(folder.name + ".aside")
    if folder.exists():
        folder.rename(aside)
    folder.write_bytes(b"")


@contextmanager
def failing(how, folder):
    with pytest.MonkeyPatch.context() as monkeypatch:
        how(monkeypatch, folder)
        try:
            yield
        finally:
            if folder.is_file():
                folder.unlink()
                aside = folder.with_name(folder.name + ".aside")
                if aside.exists():
                    aside.rename(folder)


BOTH_WAYS = pytest.mark.parametrize("how", [full, read_only])


@BOTH_WAYS
def test_training_goes_on_without_checkpoint_and_result(run, train, dog, dog_neurons, work, often, how):
    whole = train(dog, dog_neurons, seed=50)[0]
    newest(work("runs")).unlink()
    with failing(how, work("runs")):
        learned, _, text = train(dog, dog_neurons, seed=50)
    assert learned.digest() == whole.digest()
    assert "A checkpoint could not be kept" in text and "Save it with Save Concept Memory" in text
    run("SaveConceptMemory", memory=learned, filename=f"rescued_{how.__name__}")
    assert run("LoadConceptMemory", file=f"rescued_{how.__name__}.safetensors")[0].digest() == whole.digest()


@BOTH_WAYS
def test_cancel_stays_cancel_when_nothing_can_be_kept(
    comfy, train, dog, dog_neurons, hook, work, how, untouched
):
    hook(stop_at(comfy, 2))
    with failing(how, work("runs")), pytest.raises(comfy.model_management.InterruptProcessingException):
        train(dog, dog_neurons, seed=51)
    hook(None)
    assert "Resumed" not in train(dog, dog_neurons, seed=51)[2]


@BOTH_WAYS
def test_what_ends_a_training_promises_nothing_that_is_not_kept(
    comfy, train, dog, dog_neurons, hook, work, how
):
    seed = 52 if how is full else 56

    def exhausted(value, total, preview, node_id=None):
        if (value, total) == (2, 4):
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")

    hook(exhausted)
    with failing(how, work("runs")), pytest.raises(RuntimeError, match=r"Out of memory while.*Nothing of it"):
        train(dog, dog_neurons, seed=seed)
    with pytest.raises(RuntimeError, match=r"Out of memory while training.*until step 2 is kept: queue"):
        train(dog, dog_neurons, seed=seed)
    hook(None)
    assert "Resumed after step 2" in train(dog, dog_neurons, seed=seed)[2]


@BOTH_WAYS
def test_class_images_need_no_disk(train, dog, dog_neurons, work, how):
    def learn(seed):
        return train(dog, dog_neurons, seed=seed, steps=1, prior="drawn class images", class_image_count=4)

    whole = learn(53)[0]
    newest(work("runs")).unlink()
    newest(work("class_images"), "0003-*.png").unlink()
    with failing(how, work("class_images")):
        learned, _, text = learn(53)
    assert learned.digest() == whole.digest()
    assert text.count("Not kept for the next time") == 1, text


@BOTH_WAYS
def test_moments_need_no_disk(run, models, mug, work, how):
    def select(seed):
        return run(
            "SelectConceptNeurons",
            **models,
            concept=mug,
            what_may_move="directions",
            keep=f"a {seed}",
            general_prompts=24,
        )

    whole = select(1)[0]
    newest(work("moments")).unlink()
    with failing(how, work("moments")):
        again, _, text = select(1)
    assert "Not kept for the next time" in text and again.made_from == whole.made_from


@BOTH_WAYS
def test_known_models_need_no_disk(train, dog, dog_neurons, work, how):
    whole = train(dog, dog_neurons, seed=54)[0]
    for path in work("models").glob("*.safetensors"):
        path.unlink()
    with failing(how, work("models")):
        assert train(dog, dog_neurons, seed=54)[0].digest() == whole.digest()


@BOTH_WAYS
def test_a_memory_that_cannot_be_saved_leaves_the_file_as_it_was(run, both, host_base, how):
    run("SaveConceptMemory", memory=both.stage(1), filename=f"{how.__name__}/mine")
    folder = host_base / "models" / "concept_memory" / how.__name__
    before = (folder / "mine.safetensors").read_bytes()
    with failing(how, folder), pytest.raises(OSError, match="Could not save mine"):
        run("SaveConceptMemory", memory=both, filename=f"{how.__name__}/mine")
    assert (folder / "mine.safetensors").read_bytes() == before
    run("SaveConceptMemory", memory=both, filename=f"{how.__name__}/mine")
    assert len(run("LoadConceptMemory", file=f"{how.__name__}/mine.safetensors")[0]) == 2


def test_what_was_not_used_for_longest_goes_when_it_is_too_much(comfy, train, dog, dog_neurons, hook, work):
    for seed in (60, 61):
        train(dog, dog_neurons, seed=seed)
    hook(stop_at(comfy, 2))
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train(dog, dog_neurons, seed=62)
    hook(None)
    unfinished = newest(work("runs"), "*.checkpoint.safetensors")
    text = train(dog, dog_neurons, seed=63, keep_gb=0)[2]
    assert "had not been used for longest" in text and "(keep gigabytes and keep days of" in text
    left = [path for path in work("").rglob("*") if path.is_file() and path.name != ".cns.lock"]
    assert sorted(left) == sorted([newest(work("runs")), unfinished])
    train(dog, dog_neurons, seed=64, keep_gb=2)
    long_ago = time.time() - 3 * 86_400
    for path in left:
        os.utime(path, (long_ago, long_ago))
    assert "2 files" in train(dog, dog_neurons, seed=65, keep_days=2)[2]
    assert not any(path.exists() for path in left)
    assert "taken from disk" in train(dog, dog_neurons, seed=64)[2]


def test_clean_up_that_fails_costs_no_training(train, dog, dog_neurons, work, monkeypatch):
    """A file that another program holds open, and one that another ComfyUI has just removed."""
    from ComfyUI_CNS.cns_core.host import kept

    old, gone = work("runs") / "old.safetensors", work("runs") / "gone.safetensors"
    for path in (old, gone):
        path.write_bytes(b"x")
        os.utime(path, (0, 0))
    unlink, lstat = kept.Path.unlink, kept.Path.lstat

    def held_open(path, missing_ok=False):
        if path == old:
            raise PermissionError(errno.EACCES, "The process cannot access the file")
        unlink(path, missing_ok)

    def removed_meanwhile(path):
        if path == gone:
            unlink(path, True)
        return lstat(path)

    monkeypatch.setattr(kept.Path, "unlink", held_open)
    monkeypatch.setattr(kept.Path, "lstat", removed_meanwhile)
    memory = train(dog, dog_neurons, seed=66)[0]
    assert len(memory) == 1 and old.exists() and not gone.exists()
    monkeypatch.undo()
    assert "1 file of earlier work" in train(dog, dog_neurons, seed=67)[2] and not old.exists()
