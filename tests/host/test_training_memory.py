"""Gradient checkpointing in the host: when it is switched on, what is told, and that nothing else changes."""

import pytest
import torch

SMALL = 2**20  # bytes that no step fits into


@pytest.fixture
def free(comfy, monkeypatch):
    """Says how much memory is free."""

    def set_to(size):
        monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *_, **__: size)

    return set_to


@pytest.fixture
def counted(backend_module, monkeypatch):
    """The forwards in which what is kept was counted."""
    from ComfyUI_CNS.cns_core.host import training_memory

    calls, count = [], training_memory.kept_for_backward

    def watched(forward, *more):
        kept = count(forward, *more)
        calls.append(kept)
        return kept

    monkeypatch.setattr(training_memory, "kept_for_backward", watched)
    return calls


@pytest.fixture
def backward(backend_module, random_model, float32):
    """What a step on latents of some size gives, and the memory that decided about it."""

    def step(checkpointing="automatic", size=(8, 8), rows=2):
        from ComfyUI_CNS.cns_core.host.training_memory import MemoryUse

        with backend_module.training_mode():
            vectors = {"clip_l": torch.zeros(1, 768, requires_grad=True)}
            backend = backend_module.HostBackend(
                random_model.model, random_model.clip, "<x>", vectors, {}, float32
            )
            backend.memory.use = MemoryUse(checkpointing)
            z = torch.randn(rows, 4, *size, generator=torch.Generator().manual_seed(0))
            change = torch.zeros((), requires_grad=True)
            functions = {"middle_block.1.transformer_blocks.0.attn2.to_k": lambda weight: weight + change}
            with backend.weights_patched(functions):
                text = backend.encode(["<x>"] * rows, vectors)
                predicted = backend.predict(z, torch.full((rows,), 500), text)
                predicted.square().mean().backward()
            return [predicted.detach(), change.grad, vectors["clip_l"].grad], backend.memory

    return step


def test_a_step_that_fits_goes_as_ever(backward, counted, free, untouched):
    free(2**40)
    _, memory = backward()
    (told,) = memory.notes
    assert told.endswith("are free.") and "checkpointing" not in told and len(counted) == 3


def test_a_step_that_would_not_fit_is_computed_twice_and_gives_the_same(backward, counted, free, untouched):
    free(2**40)
    before, _ = backward()
    free(SMALL)
    after, memory = backward()
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    (told,) = memory.notes
    assert "gradient checkpointing was switched on" in told and "lower the batch size" in told


def test_it_can_be_had_always_or_never(backward, counted, free, untouched):
    free(SMALL)
    never, without = backward("never")
    always, with_it = backward("always")
    assert "set checkpointing to automatic, with which it needs" in without.notes[0]
    assert "; with gradient checkpointing it needs" in with_it.notes[0]
    assert all("lower the batch size" in memory.notes[0] for memory in (without, with_it))
    free(2**40)
    assert all("lower" not in backward(way)[1].notes[0] for way in ("never", "always"))
    assert all(torch.equal(one, other) for one, other in zip(never, always, strict=True))
    with pytest.raises(ValueError, match="checkpointing is 'now and then'"):
        backward("now and then")


@pytest.mark.parametrize(("size", "rows"), [((16, 32), 3), ((32, 32), 1)])
def test_what_a_step_keeps_is_told_from_small_ones(backward, free, counted, size, rows):
    from ComfyUI_CNS.cns_core.footprint import kept_for_backward, storage_of

    free(2**40)
    _, memory = backward(size=size, rows=rows)
    found = memory._footprint
    real = []

    def count(z, predict):
        constants = {storage_of(p) for p in memory._unet.parameters()}
        real.append(kept_for_backward(lambda: predict(z), memory._blocks, constants))
        raise KeyboardInterrupt

    memory_class = type(memory)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            memory_class, "_counted", lambda self, z, predict: count(z[:1].expand(rows, -1, -1, -1), predict)
        )
        backward(size=size, rows=rows)
    assert found.whole.bytes(rows, size[0] * size[1]) == pytest.approx(real[0].whole, rel=0.03)
    assert found.recomputed.bytes(rows, size[0] * size[1]) == pytest.approx(real[0].recomputed, rel=0.03)
    assert found.recomputed.per_cell < 0.5 * found.whole.per_cell


def test_the_node_tells(train, dog, dog_neurons, free, untouched):
    free(SMALL)
    text = train(dog, dog_neurons, seed=77)[2]
    assert "A training step needs about" in text and "gradient checkpointing was switched on" in text
    free(2**40)
    text = train(dog, dog_neurons, seed=78)[2]
    assert "A training step needs" in text and "checkpointing" not in text
