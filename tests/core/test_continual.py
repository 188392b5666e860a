"""The point of it all, on a pretrained toy: concepts are learned, and the mask and L_reg each lower
forgetting.
"""

import pytest
import torch

from cns_core.backend import TextFeatures
from cns_core.delta import PackedDelta
from cns_core.importance import counted_features
from cns_core.masks import NeuronMask
from cns_core.memory import BaseModel, ConceptMemory, LearnedConcept
from cns_core.selection import select_neurons
from cns_core.settings import SelectionSettings, TrainSettings
from cns_core.tokens import initial_vectors
from cns_core.training import ConceptTrainer, LatentImage, TrainingData

CONCEPTS = 3
CALIBRATION = [f"a photo of word{i}" for i in range(8)]
BASE_WORD = 9  # never a class word


def features(backend, prompts):
    encoded = backend.encode(prompts, None)
    return [
        counted_features(x, w, "caption words") for x, w in zip(encoded.cross, encoded.is_word, strict=True)
    ]


def error(backend, memory, word, pattern, n=300):
    """How far 'a photo of <word>' is from the pattern: the denoising error over fixed noise; predicting
    nothing gives 1.
    """
    g = torch.Generator().manual_seed(99)
    delta = PackedDelta(NeuronMask.empty(backend.layout), memory.union_mask(), memory.values())
    backend.known = {c.token: c.token_vectors["toy"] for c in memory.concepts}
    z0 = pattern.expand(n, -1, -1, -1)
    noise, t = torch.randn(z0.shape, generator=g), torch.randint(len(backend.levels), (n,), generator=g)
    text = backend.encode([f"a photo of {word}"], None)
    text = TextFeatures(text.cross.expand(n, -1, -1), None, text.is_word)
    with torch.no_grad(), backend.hung({k: delta.weight_function(k) for k in backend.layout.names}):
        guess = backend.predict(backend.levels.add_noise(z0, noise, t), t, text)
    return float((guess - backend.levels.target(z0, noise, t)).square().mean())


def learn(backend, memory, name, class_word, pattern, mask, settings):
    backend.known = {c.token: c.token_vectors["toy"] for c in memory.concepts}
    backend.token = f"<{name}>"
    start = initial_vectors({"toy": backend.table.weight}, {"toy": [6 + int(class_word[4:])]})
    data = TrainingData((LatentImage(pattern, (f"a photo of <{name}>",), (f"a photo of {class_word}",)),))
    trainer = ConceptTrainer(
        backend, data, PackedDelta(mask, memory.union_mask(), memory.values()), start, settings
    )
    trainer.run()
    state = trainer.state()
    losses = torch.tensor(state.losses)
    learned = LearnedConcept(
        name,
        f"<{name}>",
        class_word,
        "subject",
        mask,
        state.values.half(),
        state.token_vectors,
        {},
        losses,
        "",
    )
    return memory.with_learned(learned)


def stream(backend, patterns, masked, regularised):
    """Learn all patterns in a row; errors of the first concept after each, and of an untouched word at the
    end.
    """
    memory = ConceptMemory(BaseModel("toy", "0"), backend.layout)
    keep = (
        {"keep_earlier": 0.2, "keep_base": 0.002} if regularised else {"keep_earlier": 0.0, "keep_base": 0.0}
    )
    settings = TrainSettings(steps=150, batch_size=8, neuron_lr=1e-2, token_lr=1e-2, **keep)
    of_first = []
    for i, pattern in enumerate(patterns):
        if masked:
            mine = features(backend, [f"a photo of word{i}"])
            choice = SelectionSettings(select_by="top percent", top_percent=30)
            calibration = features(backend, CALIBRATION)
            mask = select_neurons(
                backend.projections(), backend.layout, mine, calibration, choice
            ).concept_mask
        else:
            mask = NeuronMask.full(backend.layout)
        memory = learn(backend, memory, f"c{i}", f"word{i}", pattern, mask, settings)
        of_first.append(error(backend, memory, "<c0>", patterns[0]))
    return memory, of_first, error(backend, memory, f"word{BASE_WORD}", backend.patterns[6 + BASE_WORD])


@pytest.fixture(scope="module")
def runs(toy_backend):
    """Three seeds of the full method and its ablations."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # matrices this small are slower on several threads
    found = []
    for seed in range(3):
        backend = toy_backend(seed).pretrain()
        g = torch.Generator().manual_seed(seed + 50)
        patterns = [torch.randn(2, 4, 4, generator=g) for _ in range(CONCEPTS)]
        variants = {
            "cns": stream(backend, patterns, masked=True, regularised=True),
            "no L_reg": stream(backend, patterns, masked=True, regularised=False),
            "all K/V, no L_reg": stream(backend, patterns, masked=False, regularised=False),
        }
        found.append((backend, patterns, variants))
    torch.set_num_threads(threads)
    return found


def test_each_concept_is_really_learned(runs):
    for backend, patterns, variants in runs:
        empty = ConceptMemory(BaseModel("toy", "0"), backend.layout)
        memory = variants["cns"][0]
        for i, pattern in enumerate(patterns):
            before = error(backend, empty, f"word{i}", pattern)
            after = error(backend, memory.stage(i + 1), f"<c{i}>", pattern)
            assert after < 0.3 * before, (i, before, after)


def test_the_mask_and_l_reg_each_lower_forgetting(runs):
    def mean_forgetting(name):
        return sum(v[name][1][-1] - v[name][1][0] for _, _, v in runs) / len(runs)

    cns, no_reg, dense = (
        mean_forgetting("cns"),
        mean_forgetting("no L_reg"),
        mean_forgetting("all K/V, no L_reg"),
    )
    assert cns < 0.8 * no_reg, (cns, no_reg)
    assert no_reg < 0.8 * dense, (no_reg, dense)
    for _, _, v in runs:  # and in every single seed
        assert v["cns"][1][-1] < v["no L_reg"][1][-1] < v["all K/V, no L_reg"][1][-1]


def test_other_words_are_drawn_more_as_before(runs):
    for _, _, v in runs:
        assert v["cns"][2] < v["no L_reg"][2] < v["all K/V, no L_reg"][2]


def test_earlier_stages_are_exact(runs):
    for backend, patterns, variants in runs:
        memory, of_first, _ = variants["cns"]
        for stage, seen in enumerate(of_first, 1):
            assert error(backend, memory.stage(stage), "<c0>", patterns[0]) == seen
