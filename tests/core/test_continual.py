"""The point of it all, on a pretrained toy:
concepts are learned, and the mask and L_reg each lower forgetting.
"""

import pytest
import torch

from cns_core.identity import ModelIdentity
from cns_core.memory import ConceptMemory, LearnedConcept
from cns_core.methods import METHODS
from cns_core.settings import TrainSettings
from cns_core.text_features import TextFeatures
from cns_core.tokens import initial_vectors
from cns_core.training import ConceptTrainer, LatentImage, TrainingData

CONCEPTS = 3
CALIBRATION = 8
BASE_WORD = 9  # never a class word
KEEPING = {"keep_earlier": 0.2, "keep_base": 0.002}
# method, settings of its selection, settings of its training
VARIANTS = {
    "cns": ("cns", {"select_by": "top percent"}, {"neuron_lr": 1e-2, **KEEPING}),
    "no L_reg": (
        "cns",
        {"select_by": "top percent"},
        {"neuron_lr": 1e-2, "keep_earlier": 0.0, "keep_base": 0.0},
    ),
    "all K/V, no L_reg": ("all K/V", {}, {"weight_lr": 1e-2}),
}


def error(backend, memory, word, pattern, n=300):
    """How far 'a photo of <word>' is from the pattern: the denoising error over fixed noise; predicting
    nothing gives 1.
    """
    g = torch.Generator().manual_seed(99)
    backend.known = {c.token: c.token_vectors["toy"] for c in memory.concepts}
    z0 = pattern.expand(n, -1, -1, -1)
    noise, t = torch.randn(z0.shape, generator=g), torch.randint(len(backend.levels), (n,), generator=g)
    text = backend.encode([f"a photo of {word}"], None)
    text = TextFeatures(text.cross.expand(n, -1, -1), None, text.is_word)
    with torch.no_grad(), backend.weights_patched(added(memory)):
        guess = backend.predict(backend.levels.add_noise(z0, noise, t), t, text)
    return float((guess - backend.levels.target(z0, noise, t)).square().mean())


def added(memory):
    """What drawing with the memory does to the weights."""
    return {
        name: (lambda weight, change=change: weight + change.float())
        for name, change in memory.changes().items()
    }


def learn(backend, material, memory, number, pattern, variant):
    method_name, selection, training = VARIANTS[variant]
    method, name, class_word = METHODS[method_name], f"c{number}", f"word{number}"
    prepared = method.prepare(
        material(backend, [f"a photo of {class_word}"], CALIBRATION), method.Selection(**selection)
    )
    adaptation = method.start(prepared, memory, method.Training(**training), "cpu")
    backend.known = {c.token: c.token_vectors["toy"] for c in memory.concepts}
    backend.token = f"<{name}>"
    start = initial_vectors({"toy": backend.table.weight}, {"toy": [6 + number]})
    image = LatentImage(pattern, (f"a photo of <{name}>",), (f"a photo of {class_word}",))
    settings = TrainSettings(steps=150, batch_size=8, token_lr=1e-2)
    trainer = ConceptTrainer(backend, TrainingData((image,)), adaptation, start, settings)
    trainer.run()
    vectors, change = trainer.state().token_vectors, adaptation.learned()
    return memory.with_learned(
        LearnedConcept(
            name, f"<{name}>", class_word, "subject", image.captions, method_name, change, vectors, {}, {}, ""
        )
    )


def stream(backend, material, patterns, variant):
    """Learn all patterns in a row; errors of the first concept after each,
    and of an untouched word at the end.
    """
    memory = ConceptMemory(ModelIdentity("toy", "0"), backend.layout)
    of_first = []
    for number, pattern in enumerate(patterns):
        memory = learn(backend, material, memory, number, pattern, variant)
        of_first.append(error(backend, memory, "<c0>", patterns[0]))
    return memory, of_first, error(backend, memory, f"word{BASE_WORD}", backend.patterns[6 + BASE_WORD])


@pytest.fixture(scope="module")
def runs(toy_backend, toy_material):
    """Three seeds of the full method and its ablations."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # matrices this small are slower on several threads
    found = []
    for seed in range(3):
        backend = toy_backend(seed).pretrain()
        g = torch.Generator().manual_seed(seed + 50)
        patterns = [torch.randn(2, 4, 4, generator=g) for _ in range(CONCEPTS)]
        variants = {name: stream(backend, toy_material, patterns, name) for name in VARIANTS}
        found.append((backend, patterns, variants))
    torch.set_num_threads(threads)
    return found


def test_each_concept_is_really_learned(runs):
    for backend, patterns, variants in runs:
        empty = ConceptMemory(ModelIdentity("toy", "0"), backend.layout)
        memory = variants["cns"][0]
        for i, pattern in enumerate(patterns):
            before = error(backend, empty, f"word{i}", pattern)
            after = error(backend, memory.stage(i + 1), f"<c{i}>", pattern)
            assert after < 0.3 * before, (i, before, after)


def test_the_mask_and_l_reg_each_lower_forgetting(runs):
    def mean_forgetting(name):
        return sum(v[name][1][-1] - v[name][1][0] for _, _, v in runs) / len(runs)

    cns, no_reg, dense = (mean_forgetting(name) for name in VARIANTS)
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
