"""Tokens of one or several vectors: where they start from, how they learn, what is read of other programs."""

import pytest
import torch

from cns_core.checkpoint import CheckpointError, load_state, save_state
from cns_core.foreign import embedding_vectors
from cns_core.identity import ModelIdentity
from cns_core.memory import ConceptMemory
from cns_core.methods.token_only import TokenAdaptation
from cns_core.settings import TrainSettings
from cns_core.tensor_file import TensorFile
from cns_core.tokens import initial_vectors
from cns_core.training import ConceptTrainer, LatentImage, TrainingData

TABLE = torch.randn(20, 400, generator=torch.Generator().manual_seed(1))


def test_one_vector_is_the_mean_of_the_class_words_rows():
    found = initial_vectors({"clip_l": TABLE, "clip_g": TABLE.half()}, {"clip_l": [3, 7, 3], "clip_g": [5]})
    assert torch.equal(found["clip_l"], TABLE[[3, 7, 3]].mean(dim=0)[None])
    assert torch.equal(found["clip_g"], TABLE[5:6].half().float())


def test_several_vectors_are_the_class_words_rows_in_turn_and_no_two_are_the_same():
    found = initial_vectors({"clip_l": TABLE}, {"clip_l": [3, 7, 3]}, count=5, seed=4)["clip_l"]
    assert torch.equal(found[:2], TABLE[[3, 7]])  # the third row of the word is its first again
    rows = TABLE[[3, 3, 7]]
    distance = (found[2:] - rows).norm(dim=1) / rows.norm(dim=1)
    torch.testing.assert_close(distance, torch.full((3,), 0.1), atol=0.02, rtol=0)
    assert len({tuple(row.tolist()) for row in found}) == 5


def test_fewer_vectors_than_rows_are_the_first_rows():
    found = initial_vectors({"clip_l": TABLE}, {"clip_l": [3, 7, 9]}, count=2)["clip_l"]
    assert torch.equal(found, TABLE[[3, 7]])


def test_where_they_start_from_follows_from_the_seed_alone():
    first, again, other = (initial_vectors({"e": TABLE}, {"e": [3]}, 2, seed)["e"] for seed in (4, 4, 5))
    assert torch.equal(first, again) and torch.equal(first[0], other[0]) and not torch.equal(first, other)


def test_a_class_word_without_tokens_is_refused():
    with pytest.raises(ValueError, match="no tokens in text encoder clip_l"):
        initial_vectors({"clip_l": TABLE}, {"clip_l": []}, 3)


def trainer(toy, count, resume=None, steps=4):
    image = LatentImage(
        torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(2)),
        ("a photo of <new>",),
        ("a photo of word1",),
    )
    vectors = initial_vectors({"toy": toy.table.weight}, {"toy": [6]}, count)
    memory = ConceptMemory(ModelIdentity("toy", "0"), toy.layout)
    settings = TrainSettings(steps=steps, token_lr=1e-2, prior="none", vectors=count)
    adaptation = TokenAdaptation(memory, "cpu")
    return ConceptTrainer(toy, TrainingData((image,)), adaptation, vectors, settings, resume)


def test_each_of_several_vectors_learns_in_its_own_way(toy):
    t = trainer(toy, 3)
    start = t.vectors["toy"].detach().clone()
    t.run()
    moved = t.state().token_vectors["toy"] - start
    assert moved.shape == (3, 24) and bool((moved.abs().amax(dim=1) > 1e-3).all())
    assert not torch.allclose(moved[0], moved[1], atol=1e-3)


def test_a_run_of_several_vectors_resumes_bit_for_bit(toy, tmp_path):
    whole = trainer(toy, 3)
    whole.run()
    part = trainer(toy, 3)
    part.run(stop_asked=lambda: part.step == 2)
    save_state(tmp_path / "c", part.state(), "key")
    resumed = trainer(toy, 3, load_state(tmp_path / "c", "key"))
    resumed.run()
    assert torch.equal(resumed.state().token_vectors["toy"], whole.state().token_vectors["toy"])
    with pytest.raises(CheckpointError, match=r"the token's vectors, toy is .*3, 24.*expected .*2, 24"):
        trainer(toy, 2, part.state())


@pytest.mark.parametrize("count", [0, 9])
def test_how_many_can_be_learned(count):
    with pytest.raises(ValueError, match=f"vectors is {count}; it must lie between 1 and 8"):
        TrainSettings(vectors=count)


def embedding(**shapes):
    return TensorFile({}, {name: torch.ones(shape) for name, shape in shapes.items()})


def test_embeddings_of_other_programs():
    one = embedding_vectors(embedding(emb_params=(8,)), {"clip_l": 8})
    several = embedding_vectors(embedding(clip_l=(75, 8), clip_g=(75, 12)), {"clip_l": 8, "clip_g": 12})
    assert one["clip_l"].shape == (1, 8)
    assert several["clip_l"].shape == (75, 8) and several["clip_g"].shape == (75, 12)


@pytest.mark.parametrize(
    "shapes",
    [
        {"clip_l": (76, 8), "clip_g": (76, 12)},
        {"clip_l": (0, 8), "clip_g": (0, 12)},
        {"clip_l": (2, 8), "clip_g": (3, 12)},
    ],
)
def test_embeddings_of_other_sizes_are_refused(shapes):
    with pytest.raises(ValueError, match=r"stands for .* vectors; expected 1 to 75, as many for each"):
        embedding_vectors(embedding(**shapes), {"clip_l": 8, "clip_g": 12})
