import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cns_core.methods.cns.masks import NeuronMask
from cns_core.projections import ProjectionLayout

LAYOUT = ProjectionLayout(
    ("a.to_k", "a.to_v", "b.to_k"), ((3, 5), (2, 7), (1, 3))
)  # 32 entries, no projection ends on a byte


@st.composite
def dense(draw):
    bits = draw(st.lists(st.booleans(), min_size=LAYOUT.total, max_size=LAYOUT.total))
    flat = torch.tensor(bits)
    return {n: flat[where].reshape(shape) for n, shape, where in LAYOUT.slices()}


def packed(masks):
    return NeuronMask.from_dense(LAYOUT, masks)


@given(dense())
def test_packing_round_trips(a):
    mask = packed(a)
    for name in LAYOUT.names:
        assert torch.equal(mask.dense(name), a[name])
        assert mask.row_major(name).tolist() == a[name].reshape(-1).tolist()
        assert mask.count_per_projection()[name] == int(a[name].sum())
    assert mask.count() == sum(int(m.sum()) for m in a.values()) == mask.flat().sum()
    assert NeuronMask(LAYOUT, mask.bits) == mask and hash(NeuronMask(LAYOUT, mask.bits)) == hash(mask)


@given(dense(), dense())
def test_algebra_is_elementwise(a, b):
    for name in LAYOUT.names:
        assert torch.equal((packed(a) & packed(b)).dense(name), a[name] & b[name])
        assert torch.equal((packed(a) | packed(b)).dense(name), a[name] | b[name])
        assert torch.equal((packed(a) - packed(b)).dense(name), a[name] & ~b[name])


@given(dense(), dense())
def test_laws_and_measures(a, b):
    x, y = packed(a), packed(b)
    full, empty = NeuronMask.full(LAYOUT), NeuronMask.empty(LAYOUT)
    assert x - y == x & (full - y)
    assert full - (x | y) == (full - x) & (full - y)
    assert (x | y).count() == x.count() + y.count() - (x & y).count()
    assert x.iou(y) == y.iou(x) and x.iou(x) == 1.0 and 0 <= x.iou(y) <= 1
    assert x.share() == x.count() / 32 and full.share() == 1 and empty.count() == 0


def test_bits_cannot_be_changed_afterwards():
    mask = NeuronMask.full(LAYOUT)
    with pytest.raises(ValueError):
        mask.bits[0] = 0


def test_masks_of_other_models_never_mix():
    other = ProjectionLayout(("a",), ((4, 8),))
    with pytest.raises(ValueError, match="belong to different models"):
        NeuronMask.full(LAYOUT) & NeuronMask.full(other)


def test_impossible_bits_are_refused():
    layout = ProjectionLayout(("a",), ((1, 3),))
    with pytest.raises(ValueError, match="beyond the 3"):
        NeuronMask(layout, np.array([0b11110000], dtype=np.uint8))
    with pytest.raises(ValueError, match=r"expected uint8 of shape \(1,\)"):
        NeuronMask(layout, np.zeros(2, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"expected torch.bool \(1, 3\)"):
        NeuronMask.from_dense(layout, {"a": torch.ones(1, 3)})
