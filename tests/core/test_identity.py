"""One model in several precisions is one model; two fine-tunes never are."""

import pytest
import torch

from cns_core.identity import ModelIdentity, Sample, fingerprint, sample_of
from cns_core.projections import ProjectionLayout

LAYOUT = ProjectionLayout(("a.to_k", "a.to_v"), ((96, 64), (48, 64)))
PRECISIONS = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


def weights(seed=0, scale=0.03):
    g = torch.Generator().manual_seed(seed)
    shapes = {**dict(zip(LAYOUT.names, LAYOUT.shapes, strict=True)), "norm": (64,), "table": (500, 64)}
    return {n: scale * torch.randn(s, generator=g) + (n == "norm") for n, s in shapes.items()}


def identity(found, held=torch.float16, file=torch.float16):
    """Of a file in one precision, held in another."""
    kept = {n: w.to(file).to(held) for n, w in found.items()}
    sample = sample_of((w, held, 8) for w in kept.values())
    return ModelIdentity("SD1", fingerprint(LAYOUT, kept, {"clip_l": kept["table"]}), sample)


@pytest.mark.parametrize("file", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("a", PRECISIONS)
@pytest.mark.parametrize("b", PRECISIONS)
def test_one_file_is_one_model_in_any_precision(file, a, b):
    one, other = (identity(weights(), held, file) for held in (a, b))
    assert one.same_as(other) and other.same_as(one)
    assert one.distance(other) < 0.2


@pytest.mark.parametrize("held", PRECISIONS)
@pytest.mark.parametrize("share", [1e-2, 0.3])
def test_a_fine_tune_is_another_model_however_it_is_held(held, share):
    tuned = {n: w + share * 0.03 * torch.randn_like(w) for n, w in weights().items()}
    base = identity(weights())
    assert not base.same_as(identity(tuned, held)) and not identity(tuned, held).same_as(base)


def test_the_lightest_fine_tune_is_another_model_in_the_same_precision():
    tuned = weights()
    tuned["a.to_v"][3, 5] += 0.01  # no sample may have this entry: the fingerprint has
    assert not identity(weights()).same_as(identity(tuned))


def test_a_change_outside_keys_and_values_counts():
    tuned = weights()
    tuned["norm"] *= 1.01
    assert identity(tuned).fingerprint == identity(weights()).fingerprint
    assert not identity(tuned).same_as(identity(weights()))


def test_distance_grows_with_the_difference():
    base, other = identity(weights()), identity({**weights(1), "norm": weights()["norm"]})
    near = identity({n: w + 0.05 * 0.03 * torch.randn_like(w) for n, w in weights().items()})
    assert 0.01 < base.distance(near) < 0.1 < 1 < base.distance(other) < 1.6
    assert base.distance(base) == 0
    assert "% apart" in base.told_apart(near)


def test_without_a_sample_the_fingerprint_decides():
    base = identity(weights())
    before = ModelIdentity("SD1", base.fingerprint)
    assert before.same_as(base) and base.same_as(before)
    assert not before.same_as(identity(weights(1)))
    assert before.told_apart(base) == "" and before.distance(base) == float("inf")
    assert not ModelIdentity("SD2", base.fingerprint).same_as(before)


def test_models_of_other_layouts_are_infinitely_far():
    small = sample_of([(torch.ones(4), torch.float32, 1)])
    assert not small.agrees(identity(weights()).sample)
    assert small.distance(identity(weights()).sample) == float("inf")


def test_the_fingerprint_ignores_half_precision_but_not_content():
    found, table = weights(), {"clip_l": weights()["table"]}
    halves = {n: w.half() for n, w in found.items()}
    assert fingerprint(LAYOUT, found, table) == fingerprint(LAYOUT, halves, table)
    changed = {**found, "a.to_v": found["a.to_v"] + 1}
    others = [
        fingerprint(LAYOUT, changed, table),
        fingerprint(LAYOUT, found, {"clip_l": table["clip_l"] + 1}),
    ]
    assert fingerprint(LAYOUT, found, table) not in others


@pytest.mark.parametrize(
    "tensors",
    [
        {"values": torch.zeros(2, 8), "rounding": torch.zeros(2, 8, dtype=torch.int8)},
        {"values": torch.zeros(2, 8).half(), "rounding": torch.zeros(3, 8, dtype=torch.int8)},
        {"values": torch.zeros(16).half(), "rounding": torch.zeros(16, dtype=torch.int8)},
    ],
)
def test_a_damaged_sample_is_refused(tensors):
    with pytest.raises(ValueError, match=r"expected float16 and int8 \[any, 8\]"):
        Sample.read(tensors)
