"""Files that were changed, programs that were killed, and two that write at once: the short run of
`dev.py bench faults`.
"""

import contextlib
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.faults import files, samples
from benchmarks.faults.mutations import mutated
from benchmarks.faults.saving import killed_while_saving, saved_at_once
from cns_core.atomic_write import LOCK_NAME, only_writer, write_atomically
from cns_core.checkpoint import CheckpointError, load_state
from cns_core.memory_file import MemoryFileError, load_memory, save_memory, update_memory
from cns_core.tensor_file import TensorFileError, read_tensors

few = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    return {
        make: [make(folder, seed) for seed in range(2)]
        for make in (samples.memory_file, samples.checkpoint_file)
    }


@few
@given(chance=st.randoms(use_true_random=False))
def test_a_changed_memory_file_is_refused_as_promised_or_sound(sound, tmp_path, chance):
    path = tmp_path / "m.safetensors"
    path.write_bytes(mutated(*sound[samples.memory_file], chance))
    try:
        memory = load_memory(path)
    except MemoryFileError as error:
        assert len(str(error)) < 2_000
    else:
        assert files.memory_fault(memory) is None


@few
@given(chance=st.randoms(use_true_random=False))
def test_a_changed_checkpoint_is_refused_as_promised_or_sound(sound, tmp_path, chance):
    path = tmp_path / "c.safetensors"
    path.write_bytes(mutated(*sound[samples.checkpoint_file], chance))
    try:
        state = load_state(path, samples.RUN_KEY)
    except CheckpointError as error:
        assert len(str(error)) < 2_000
    else:
        assert files.checkpoint_fault(state) is None


@few
@given(content=st.binary(max_size=200))
def test_any_bytes_are_refused_as_no_tensor_file(tmp_path, content):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(TensorFileError, match=r"m\.safetensors"):
        read_tensors(path)


def test_the_measure_itself_finds_faults():
    memory = samples.memory(0)
    memory.concepts[0].token_vectors["clip_l"][0] = float("nan")
    assert files.memory_fault(memory) == "numbers that are not finite"


def test_a_file_that_is_rewritten_in_place_meanwhile_ends_no_process(tmp_path):
    path, stop = tmp_path / "m.safetensors", threading.Event()
    whole = samples.memory_file(tmp_path, 0)
    path.write_bytes(whole)

    def rewrite():
        while not stop.is_set():
            with path.open("r+b") as file:
                file.truncate(100)
                file.seek(0)
                file.write(whole)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for _ in range(200):
            with contextlib.suppress(MemoryFileError):
                load_memory(path)
    finally:
        stop.set()
        writer.join()


def test_a_save_meanwhile_is_no_damage(tmp_path):
    path, stop = tmp_path / "m.safetensors", threading.Event()
    save_memory(path, samples.memory(0))

    def save():
        while not stop.is_set():
            save_memory(path, samples.memory(1))

    writer = threading.Thread(target=save)
    writer.start()
    try:
        for _ in range(200):
            assert len(load_memory(path)) == 3
    finally:
        stop.set()
        writer.join()


def test_a_killed_writer_leaves_a_whole_file_and_the_next_one_clears_up():
    found = killed_while_saving(6, seed=0)
    assert (found.tried, found.half_written, found.leftovers) == (6, [], [])


def test_of_two_that_save_under_one_name_one_is_refused_and_nothing_is_lost():
    found = saved_at_once(8)
    assert (found.tried, found.lost) == (8, [])


def test_what_writers_have_left_is_removed_and_nothing_else(tmp_path):
    left = [".m.safetensors.abc12345.cns-part", ".other.png.x.cns-part", ".m.safetensors.ab_c12z9"]
    kept = ["m.safetensors", ".hidden", ".m.safetensors", "x.cns-part", ".m.safetensors.backup"]
    for name in left + kept:
        (tmp_path / name).write_bytes(b"x")
    write_atomically(tmp_path / "new.safetensors", b"y")
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "new.safetensors", LOCK_NAME])


def test_a_second_writer_waits_for_the_first(tmp_path):
    order = []

    def second():
        write_atomically(tmp_path / "b", b"x")
        order.append("second")

    with only_writer(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        write_atomically(tmp_path / "a", b"x")  # whoever is the writer may write
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_writer_that_never_ends_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr("cns_core.atomic_write._PATIENCE", 0.2)
    errors = []

    def second():
        try:
            write_atomically(tmp_path / "b", b"x")
        except OSError as error:
            errors.append(str(error))

    with only_writer(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(errors) == 1 and "Another program has been writing" in errors[0]
    assert not (tmp_path / "b").exists()


def test_another_concept_of_the_same_name_is_not_replaced(tmp_path):
    path = Path(tmp_path / "m.safetensors")
    update_memory(path, samples.memory(0), replace=False)
    update_memory(path, samples.memory(0), replace=False)  # the same again
    with pytest.raises(
        ValueError, match=r"already holds.*dog 0, dog 1, dog 2 would be another one of the same"
    ):
        update_memory(path, samples.memory(1), replace=False)
    assert load_memory(path).digest() == samples.memory(0).digest()
    update_memory(path, samples.memory(0, concepts=4), replace=False)
    assert len(load_memory(path)) == 4
    update_memory(path, samples.memory(1), replace=True)
    assert load_memory(path).digest() == samples.memory(1).digest()
